package entra

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of Fault.
const (
	// FaultThrottle answers 429 and carries nothing out.
	FaultThrottle = "throttle"
	// FaultStatus answers with Status and carries the call out only when Apply is set.
	FaultStatus = "status"
	// FaultHang answers nothing until the client gives up, and carries nothing out.
	FaultHang = "hang"
	// FaultApplyHang carries the call out and then answers nothing until the client gives up or is gone.
	FaultApplyHang = "apply_hang"
	// FaultDropRequest closes the connection before the call is carried out.
	FaultDropRequest = "drop_request"
	// FaultDropReply carries the call out and closes the connection instead of answering.
	FaultDropReply = "drop_reply"
	// FaultApplyLate closes the connection now (or answers with Status, if that is set) and carries the call out DelayMS later.
	FaultApplyLate = "apply_late"
)

// Fault makes calls go wrong. The first fault that fits a call befalls it. Clients may retry by themselves what was never
// answered: Go's HTTP client repeats a GET whose reused connection was closed.
type Fault struct {
	Method string `json:"method,omitempty"` // HTTP method; any when empty
	Path   string `json:"path,omitempty"`   // part of the path, for example "phoneMethods" or "oauth2/v2.0/token"; any when empty
	Skip   int    `json:"skip,omitempty"`   // this many fitting calls are spared first
	Times  int    `json:"times,omitempty"`  // how many calls it befalls; once when 0, until it is cleared when negative
	Kind   string `json:"kind"`

	Status     int    `json:"status,omitempty"`      // for status (503 when 0) and apply_late
	Code       string `json:"code,omitempty"`        // of the error, in place of the usual one
	Message    string `json:"message,omitempty"`     // of the error, in place of the usual one
	RetryAfter *int   `json:"retry_after,omitempty"` // seconds, as the Retry-After header; without it the header is missing too
	Apply      bool   `json:"apply,omitempty"`       // for status: the call takes effect all the same
	DelayMS    int    `json:"delay_ms,omitempty"`    // for apply_late, in milliseconds
}

func (f *Fault) check() string {
	switch {
	case !slices.Contains([]string{FaultThrottle, FaultStatus, FaultHang, FaultApplyHang, FaultDropRequest, FaultDropReply, FaultApplyLate}, f.Kind):
		return "the kind of fault must be throttle, status, hang, apply_hang, drop_request, drop_reply or apply_late, not '" + f.Kind + "'"
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		return "the status of a fault must be between 400 and 599"
	case f.DelayMS < 0 || f.Skip < 0:
		return "delay_ms and skip must not be negative"
	}
	return ""
}

// takeFault finds the fault that befalls the request and uses it up, or returns nil.
func (t *Tenant) takeFault(r *http.Request) *Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, f := range t.faults {
		if f.Method != "" && !strings.EqualFold(f.Method, r.Method) || !strings.Contains(r.URL.Path, f.Path) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		taken := *f
		switch {
		case f.Times > 1:
			f.Times--
		case f.Times >= 0:
			t.faults = slices.Delete(t.faults, i, i+1)
		}
		t.notify()
		return &taken
	}
	return nil
}

// deliver answers the request, or lets a fault befall it.
func (t *Tenant) deliver(w http.ResponseWriter, r *http.Request, x exchange) {
	f := t.takeFault(r)
	if f == nil {
		x.answer("").write(w)
		return
	}
	switch f.Kind {
	case FaultThrottle:
		x.refuse(http.StatusTooManyRequests, orElse(f.Code, "TooManyRequests"), orElse(f.Message, "Too many requests. Please retry again later."), f.Kind).
			after(f.RetryAfter).write(w)
	case FaultStatus:
		if f.Apply {
			x.answer(f.Kind)
		}
		f.error(x).write(w)
	case FaultHang, FaultApplyHang:
		if f.Kind == FaultApplyHang {
			x.answer(f.Kind)
		} else {
			x.lose(f.Kind)
		}
		select {
		case <-r.Context().Done():
		case <-t.closed:
		}
		panic(http.ErrAbortHandler)
	case FaultDropRequest:
		x.lose(f.Kind)
		panic(http.ErrAbortHandler) // net/http closes the connection without a word
	case FaultDropReply:
		x.answer(f.Kind)
		panic(http.ErrAbortHandler)
	case FaultApplyLate:
		t.later(time.Duration(f.DelayMS)*time.Millisecond, func() { x.answer(f.Kind) })
		if f.Status == 0 {
			panic(http.ErrAbortHandler)
		}
		f.error(x).write(w)
	}
}

// error is the answer that a fault gives instead of the real one.
func (f *Fault) error(x exchange) reply {
	status := f.Status
	if status == 0 {
		status = http.StatusServiceUnavailable
	}
	code, message := "UnknownError", http.StatusText(status)
	switch status {
	case http.StatusTooManyRequests:
		code, message = "TooManyRequests", "Too many requests. Please retry again later."
	case http.StatusInternalServerError:
		code, message = "InternalServerError", "Something went wrong on the server."
	case http.StatusServiceUnavailable:
		code, message = "ServiceUnavailable", "The service is temporarily unavailable. Please retry again later."
	case http.StatusGatewayTimeout:
		code, message = "GatewayTimeout", "The gateway did not receive a response from the upstream server in time."
	}
	return x.refuse(status, orElse(f.Code, code), orElse(f.Message, message), f.Kind).after(f.RetryAfter)
}

func (p reply) after(seconds *int) reply {
	if seconds != nil {
		p.header.Set("Retry-After", strconv.Itoa(*seconds))
	}
	return p
}

// later carries a call out after a delay, unless the tenant is closed by then.
func (t *Tenant) later(delay time.Duration, do func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.closed:
		return
	default:
	}
	var timer *time.Timer
	timer = time.AfterFunc(delay, func() {
		t.mu.Lock() // not before the timer is noted
		_, due := t.late[timer]
		t.mu.Unlock()
		if !due {
			return
		}
		do()
		t.mu.Lock()
		delete(t.late, timer)
		t.mu.Unlock()
	})
	t.late[timer] = true
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Call counts the calls that were alike. Required, AnyOf, Used and Granted are set once a call came as far as the check of its
// permissions: they are what the endpoint demanded. A call may be granted and still lack a required permission: then Graph
// answered, and kept the properties of some objects back.
type Call struct {
	Method   string     `json:"method"`
	Path     string     `json:"path"`     // the path's template with the version, "/v1.0/users/{id}"
	Status   int        `json:"status"`   // 0 when there was no answer
	Required []string   `json:"required"` // the least privileged permissions for it
	AnyOf    [][]string `json:"any_of"`   // of each list, one alternative was demanded; "A + B" is both
	Used     []string   `json:"used"`     // the least privileged of the granted permissions that sufficed
	Granted  bool       `json:"granted"`
	Fault    string     `json:"fault,omitempty"`
	Count    int        `json:"count"`
}

// demand notes that the call needs one of the alternatives, and reports whether that is granted.
func (c *Call) demand(alternatives anyOf, isGranted func(string) bool) bool {
	c.AnyOf = append(c.AnyOf, alternatives)
	c.Required = addNames(c.Required, alternatives[0])
	i := slices.IndexFunc(alternatives, isGranted)
	if i >= 0 {
		c.Used = addNames(c.Used, alternatives[i])
	}
	return i >= 0
}

// Entry is one call, in the order in which calls were answered.
type Entry struct {
	N         int    `json:"n"`
	Time      string `json:"time"`
	Method    string `json:"method"`
	Path      string `json:"path"` // as it was asked for, without the query
	Status    int    `json:"status"`
	RequestID string `json:"request_id,omitempty"`
	Fault     string `json:"fault,omitempty"`
	Digest    string `json:"digest,omitempty"` // the same for two calls with the same body, which may hold a secret and is not kept
}

// callLog keeps counters and the last calls.
type callLog struct {
	calls   []*Call
	recent  []Entry
	changes []Entry
	n       int
}

// How many single calls are remembered, and how many of those that were to change something: whoever wants to know what was
// done to an account in a long test must not have to look all the time.
const (
	keptCalls   = 500
	keptChanges = 20000
)

// count notes a call. The caller holds t.mu.
func (t *Tenant) count(c Call, path, requestID string, body []byte) {
	log := &t.log
	log.n++
	e := Entry{log.n, t.now().UTC().Format(time.RFC3339Nano), c.Method, path, c.Status, requestID, c.Fault, digest(body)}
	log.recent = append(log.recent, e)
	if len(log.recent) > keptCalls {
		log.recent = slices.Clone(log.recent[len(log.recent)-keptCalls:])
	}
	if c.Method != http.MethodGet && graphVersion(path) != "" {
		log.changes = append(log.changes, e)
		if len(log.changes) > keptChanges {
			log.changes = slices.Clone(log.changes[len(log.changes)-keptChanges:])
		}
	}
	for _, known := range log.calls {
		if known.Method == c.Method && known.Path == c.Path && known.Status == c.Status && known.Fault == c.Fault && known.Granted == c.Granted &&
			slices.Equal(known.Required, c.Required) && slices.Equal(known.Used, c.Used) {
			known.Count++
			return
		}
	}
	c.Count = 1
	log.calls = append(log.calls, &c)
}

// digest tells bodies apart without telling what is in them.
func digest(body []byte) string {
	if len(body) == 0 {
		return ""
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}
