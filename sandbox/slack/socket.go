package slack

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// Socket Mode (https://docs.slack.dev/apis/events-api/using-socket-mode).

const (
	maxSockets     = 10
	ticketLife     = time.Minute
	keptEnvelopes  = 500
	debugReconnect = 360 * time.Second // the life of a connection opened with debug_reconnects=true
)

// Why an envelope has no answer. The texts are the error codes that Slack's client shows.
var (
	errNoSocket = errors.New("dispatch_failed")
	errTimeout  = errors.New("operation_timeout")
)

// envelope is one envelope for the app; it can be sent several times.
type envelope struct {
	id, kind string
	accepts  bool
	payload  any
	attempt  int
	reason   string

	sent, acked int
	open        bool          // waiting for an answer
	answered    chan struct{} // closed when the answer has arrived
	answer      json.RawMessage
}

// socket is one connection of the app.
type socket struct {
	conn     *websocket.Conn
	watch    *frameWatch
	out      chan frame
	draining bool // was sent a disconnect: gets no more envelopes
	done     chan struct{}
	timers   []*time.Timer
}

// frame is one WebSocket message to the app.
type frame struct {
	kind int // websocket.TextMessage, the only type that Slack sends, or the type given to Frame
	data []byte
}

func textFrame(message map[string]any) frame { return frame{websocket.TextMessage, encode(message)} }

func (k *socket) cut() { _ = k.conn.Close() }

// openConnection implements apps.connections.open.
func (s *Server) openConnection(c *call) (map[string]any, *refusal) {
	if c.r.Method != http.MethodPost {
		return nil, refuse("insecure_request")
	}
	if !s.o.Manifest.SocketMode {
		return nil, refuse("access_denied")
	}
	maps.DeleteFunc(s.tickets, func(_ string, issued time.Time) bool { return s.o.Now().Sub(issued) > ticketLife })
	ticket := uuid()
	s.tickets[ticket] = s.o.Now()
	url := "ws" + strings.TrimPrefix(s.base, "http") + "/link/?ticket=" + ticket + "&app_id=" + s.o.Workspace.AppID
	return map[string]any{"url": url}, nil
}

// serveLink serves a WebSocket of the app until it ends. It takes the lock itself.
func (s *Server) serveLink(w http.ResponseWriter, r *http.Request) {
	ticket := r.URL.Query().Get("ticket")
	s.mu.Lock()
	issued, ok := s.tickets[ticket]
	delete(s.tickets, ticket) // a ticket is for one connection
	ok = ok && s.o.Now().Sub(issued) <= ticketLife
	s.mu.Unlock()
	if !ok {
		http.Error(w, "this ticket is unknown, used or expired: call apps.connections.open again", http.StatusForbidden)
		return
	}
	watch := &frameWatch{}
	upgrader := websocket.Upgrader{
		ReadBufferSize:  4096, // not the HTTP server's reader: watch has to see the frames
		WriteBufferSize: 32 << 10,
		CheckOrigin:     func(*http.Request) bool { return true }, // SDKs send arbitrary Origin headers
	}
	conn, err := upgrader.Upgrade(hijackInto{w, watch}, r, nil)
	if err != nil {
		return // Upgrade has sent the response
	}
	life := s.o.ConnectionLife
	if r.URL.Query().Get("debug_reconnects") == "true" {
		life = min(life, debugReconnect)
	}
	k := &socket{conn: conn, watch: watch, out: make(chan frame, 256), done: make(chan struct{})}

	s.mu.Lock()
	select {
	case <-s.closed:
		s.mu.Unlock()
		_ = conn.Close()
		return
	default:
	}
	if len(s.sockets) >= maxSockets {
		s.mu.Unlock()
		_ = conn.WriteMessage(websocket.TextMessage, encode(s.disconnectFrame("too_many_websockets")))
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.ClosePolicyViolation, "too_many_websockets"), time.Now().Add(time.Second))
		_ = conn.Close()
		return
	}
	k.out <- textFrame(map[string]any{
		"type": "hello", "num_connections": len(s.sockets) + 1, "connection_info": map[string]any{"app_id": s.o.Workspace.AppID},
		"debug_info": map[string]any{"host": "applink-sandbox", "started": s.o.Now().UTC().Format("2006-01-02 15:04:05.000"), "build_number": 1,
			"approximate_connection_time": int(life.Seconds())},
	})
	s.sockets = append(s.sockets, k)
	k.timers = append(k.timers, time.AfterFunc(max(life-s.o.WarnAhead, 0), func() { s.locked(func() { s.disconnect(k, "warning") }) }))
	s.notify()
	s.mu.Unlock()

	go s.write(k)
	s.read(k)

	s.mu.Lock()
	defer s.mu.Unlock()
	close(k.done)
	k.cut()
	for _, t := range k.timers {
		t.Stop()
	}
	s.sockets = slices.DeleteFunc(s.sockets, func(x *socket) bool { return x == k })
	s.notify()
}

// locked runs f with the lock held. The caller must not hold it.
func (s *Server) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// write is the only writer of messages to a socket, because a WebSocket allows only one. It runs without the lock.
func (s *Server) write(k *socket) {
	ping := time.NewTicker(s.o.PingEvery)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-k.done:
			return
		case f := <-k.out:
			_ = k.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			err = k.conn.WriteMessage(f.kind, f.data)
		case <-ping.C:
			err = k.conn.WriteControl(websocket.PingMessage, []byte("Ping from sandbox"), time.Now().Add(time.Second))
		}
		if err != nil {
			k.cut()
		}
	}
}

// read reads the app's answers until the socket ends. It runs without the lock.
func (s *Server) read(k *socket) {
	alive := func() { _ = k.conn.SetReadDeadline(time.Now().Add(3 * s.o.PingEvery)) }
	alive()
	k.conn.SetReadLimit(1 << 20)
	k.conn.SetPongHandler(func(string) error { alive(); return nil })
	pong := k.conn.PingHandler()
	k.conn.SetPingHandler(func(data string) error { alive(); return pong(data) })
	for {
		_, frame, err := k.conn.ReadMessage()
		if err != nil {
			return
		}
		alive()
		s.locked(func() { s.acknowledge(frame, k.watch.next()) })
	}
}

// acknowledge processes one message from the app.
func (s *Server) acknowledge(frame []byte, fragmented bool) {
	var ack struct {
		ID      string          `json:"envelope_id"`
		Payload json.RawMessage `json:"payload"`
	}
	if len(frame) >= maxAckFrame || fragmented || json.Unmarshal(frame, &ack) != nil {
		s.counts.Envelopes.Dropped++
		return
	}
	i := slices.IndexFunc(s.envelopes, func(e *envelope) bool { return e.id == ack.ID })
	if i < 0 {
		s.counts.Envelopes.Dropped++
		return
	}
	e := s.envelopes[i]
	e.acked++
	switch {
	case e.open:
		e.open = false
		e.answer = ack.Payload
		close(e.answered)
		s.counts.Envelopes.Acked++
	case e.acked > e.sent:
		s.counts.Envelopes.Repeated++
	default:
		s.counts.Envelopes.Late++
	}
}

// newEnvelope creates an envelope without sending it.
func (s *Server) newEnvelope(kind string, accepts bool, payload any) *envelope {
	e := &envelope{id: uuid(), kind: kind, accepts: accepts, payload: payload}
	s.envelopes = append(s.envelopes, e)
	if n := len(s.envelopes) - keptEnvelopes; n > 0 {
		s.envelopes = slices.Delete(s.envelopes, 0, n)
	}
	return e
}

func (e *envelope) json() map[string]any {
	return map[string]any{
		"envelope_id": e.id, "type": e.kind, "accepts_response_payload": e.accepts, "payload": e.payload,
		"retry_attempt": e.attempt, "retry_reason": e.reason,
	}
}

// anySocket selects the socket for the next message; nil when none is ready.
func (s *Server) anySocket() *socket {
	ready := slices.DeleteFunc(slices.Clone(s.sockets), func(k *socket) bool { return k.draining || len(k.out) == cap(k.out) })
	if len(ready) == 0 {
		return nil
	}
	return ready[rand.IntN(len(ready))]
}

// deliver sends an envelope to one socket and waits for the answer. Call it without the lock.
func (s *Server) deliver(e *envelope) (json.RawMessage, error) {
	s.mu.Lock()
	k := s.anySocket()
	if k == nil {
		s.counts.Envelopes.Undelivered++
		s.mu.Unlock()
		return nil, errNoSocket
	}
	e.open, e.answered, e.answer = true, make(chan struct{}), nil
	e.sent++
	s.counts.Envelopes.Sent++
	if e.sent > 1 {
		s.counts.Envelopes.Redelivered++
	}
	answered := e.answered
	k.out <- textFrame(e.json())
	s.mu.Unlock()

	timeout := time.NewTimer(s.o.AckTimeout)
	defer timeout.Stop()
	select {
	case <-answered:
	case <-timeout.C:
	case <-s.closed:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.open {
		e.open = false
		s.counts.Envelopes.TimedOut++
		return nil, errTimeout
	}
	return e.answer, nil
}

// The following methods are for tests in the sandbox's own process that send the app input that Slack would never send.

// Deliver sends the app an envelope of this kind (slash_commands, interactive or events_api) with any payload, and waits for the
// answer as long as Slack does. The error is the one that Slack's client would show.
func (s *Server) Deliver(kind string, payload any) (json.RawMessage, error) {
	s.mu.Lock()
	e := s.newEnvelope(kind, true, payload)
	s.mu.Unlock()
	return s.deliver(e)
}

// Delivered returns the last envelopes, oldest first, as they were sent to the app.
func (s *Server) Delivered() []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]json.RawMessage, len(s.envelopes))
	for i, e := range s.envelopes {
		all[i] = encode(e.json())
	}
	return all
}

// Frame sends the app one WebSocket message with these bytes. It returns false when no socket is ready. An answer to it is
// ignored.
func (s *Server) Frame(binary bool, data []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.anySocket()
	if k == nil {
		return false
	}
	kind := websocket.TextMessage
	if binary {
		kind = websocket.BinaryMessage
	}
	k.out <- frame{kind, data}
	return true
}

// Forget removes all messages after this timestamp from all conversations, to save memory.
func (s *Server) Forget(behind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.channels {
		c.messages = slices.DeleteFunc(c.messages, func(m *message) bool { return m.ts > behind })
	}
	s.notify()
}

// sendEvent sends the app an event and repeats it until it is acknowledged (https://docs.slack.dev/apis/events-api#retries).
func (s *Server) sendEvent(event map[string]any) {
	w := s.o.Workspace
	e := s.newEnvelope("events_api", false, map[string]any{
		"token": s.verification, "team_id": w.TeamID, "api_app_id": w.AppID, "type": "event_callback",
		"event_id": randomID("Ev"), "event_time": s.o.Now().Unix(), "event": event, "is_ext_shared_channel": false,
		"event_context": "4-" + randomID(""),
		"authorizations": []any{map[string]any{"enterprise_id": nil, "team_id": w.TeamID, "user_id": s.bot.ID, "is_bot": true,
			"is_enterprise_install": false}},
	})
	s.work.Go(func() {
		for i := 0; ; i++ {
			if _, err := s.deliver(e); err == nil || i == len(s.o.RetryAfter) {
				return
			}
			select {
			case <-s.closed:
				return
			case <-time.After(s.o.RetryAfter[i]):
			}
			s.locked(func() { e.attempt, e.reason = i+1, "timeout" })
		}
	})
}

// disconnect sends a socket a disconnect message. The reason "cut" closes it without a message.
func (s *Server) disconnect(k *socket, reason string) {
	if reason == "cut" {
		k.cut()
		return
	}
	if k.draining {
		return
	}
	select {
	case k.out <- textFrame(s.disconnectFrame(reason)):
	default:
	}
	if reason == "warning" {
		k.timers = append(k.timers, time.AfterFunc(s.o.WarnAhead, func() { s.locked(func() { s.disconnect(k, "refresh_requested") }) }))
		return
	}
	k.draining = true // answers to earlier envelopes still count
	k.timers = append(k.timers, time.AfterFunc(s.o.WarnAhead, k.cut))
}

func (s *Server) disconnectFrame(reason string) map[string]any {
	return map[string]any{"type": "disconnect", "reason": reason, "debug_info": map[string]any{"host": "wss-sandbox"}}
}

// hijackInto wraps a hijacked connection in a frameWatch.
type hijackInto struct {
	http.ResponseWriter
	watch *frameWatch
}

func (h hijackInto) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	hijacker, ok := h.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("WebSockets need HTTP/1.1")
	}
	conn, rw, err := hijacker.Hijack()
	h.watch.Conn = conn
	return h.watch, rw, err
}

// frameWatch observes the bytes that are read and records which of the client's messages came in more than one WebSocket frame
// (RFC 6455, section 5.4): Slack ignores those, and the WebSocket library does not report them. Only the reading goroutine uses it.
type frameWatch struct {
	net.Conn
	header     []byte // header of the frame being read, as far as it has arrived
	left       uint64 // remaining bytes of its body
	fragmented bool   // whether the message being read is fragmented
	messages   []bool // for each complete message that next has not returned yet: whether it was fragmented
}

func (f *frameWatch) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	f.observe(p[:n])
	return n, err
}

// next reports whether the oldest message that it has not returned yet was fragmented.
func (f *frameWatch) next() bool {
	if len(f.messages) == 0 {
		return false
	}
	first := f.messages[0]
	f.messages = f.messages[1:]
	return first
}

func (f *frameWatch) observe(b []byte) {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(b)))
			f.left -= n
			b = b[n:]
		} else {
			f.header = append(f.header, b[0])
			b = b[1:]
			size, known := bodySize(f.header)
			if !known {
				continue
			}
			f.left = size
		}
		if f.left == 0 {
			f.endFrame()
		}
	}
}

func (f *frameWatch) endFrame() {
	final, opcode := f.header[0]&0x80 != 0, f.header[0]&0x0f
	f.header = f.header[:0]
	if opcode >= 8 { // ping, pong and close can occur between the frames of a message
		return
	}
	f.fragmented = f.fragmented || !final
	if final {
		f.messages = append(f.messages, f.fragmented)
		f.fragmented = false
	}
}

// bodySize reads the length of a client's frame from its header; known is false until the header is complete.
func bodySize(header []byte) (size uint64, known bool) {
	if len(header) < 2 {
		return 0, false
	}
	end, size := 2, uint64(header[1]&0x7f)
	switch size {
	case 126:
		end = 4
	case 127:
		end = 10
	}
	need := end
	if header[1]&0x80 != 0 {
		need += 4 // the mask
	}
	if len(header) < need {
		return 0, false
	}
	switch end {
	case 4:
		size = uint64(binary.BigEndian.Uint16(header[2:]))
	case 10:
		size = binary.BigEndian.Uint64(header[2:])
	}
	return size, true
}
