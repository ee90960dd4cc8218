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
	// FaultThrottle returns 429 without executing the call.
	FaultThrottle = "throttle"
	// FaultStatus returns Status and executes the call only if Apply is set.
	FaultStatus = "status"
	// FaultHang does not respond until the client gives up, and does not execute the call.
	FaultHang = "hang"
	// FaultApplyHang executes the call, and then does not respond until the client gives up.
	FaultApplyHang = "apply_hang"
	// FaultDropRequest closes the connection without executing the call.
	FaultDropRequest = "drop_request"
	// FaultDropReply executes the call and closes the connection instead of responding.
	FaultDropReply = "drop_reply"
	// FaultApplyLate closes the connection (or returns Status, if it is set) and executes the call DelayMS later.
	FaultApplyLate = "apply_late"
)

// Fault makes calls fail. The first matching fault applies to a call. Clients may retry unanswered calls automatically: Go's HTTP
// client repeats a GET when a reused connection was closed.
type Fault struct {
	Method string `json:"method,omitempty"` // HTTP method; any when empty
	Path   string `json:"path,omitempty"`   // part of the path, for example "phoneMethods" or "oauth2/v2.0/token"; any when empty
	Skip   int    `json:"skip,omitempty"`   // number of matching calls to skip first
	Times  int    `json:"times,omitempty"`  // number of calls it applies to; 0 means one, negative means until it is cleared
	Kind   string `json:"kind"`

	Status     int    `json:"status,omitempty"`      // for status (503 when 0) and apply_late
	Code       string `json:"code,omitempty"`        // error code instead of the default
	Message    string `json:"message,omitempty"`     // error message instead of the default
	RetryAfter *int   `json:"retry_after,omitempty"` // Retry-After header in seconds; no header when nil
	Apply      bool   `json:"apply,omitempty"`       // for status: execute the call anyway
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

// takeFault returns the fault that applies to the request and counts its use, or returns nil.
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

// deliver handles the request, or applies a fault to it.
func (t *Tenant) deliver(w http.ResponseWriter, r *http.Request, x exchange) {
	f := t.takeFault(r)
	if f == nil {
		x.handle("").write(w)
		return
	}
	switch f.Kind {
	case FaultThrottle:
		x.refuse(http.StatusTooManyRequests, orElse(f.Code, "TooManyRequests"), orElse(f.Message, "Too many requests. Please retry again later."), f.Kind).
			withRetryAfter(f.RetryAfter).write(w)
	case FaultStatus:
		if f.Apply {
			x.handle(f.Kind)
		}
		f.error(x).write(w)
	case FaultHang, FaultApplyHang:
		if f.Kind == FaultApplyHang {
			x.handle(f.Kind)
		} else {
			x.drop(f.Kind)
		}
		select {
		case <-r.Context().Done():
		case <-t.closed:
		}
		panic(http.ErrAbortHandler)
	case FaultDropRequest:
		x.drop(f.Kind)
		panic(http.ErrAbortHandler) // net/http closes the connection without a response
	case FaultDropReply:
		x.handle(f.Kind)
		panic(http.ErrAbortHandler)
	case FaultApplyLate:
		t.applyLater(time.Duration(f.DelayMS)*time.Millisecond, func() { x.handle(f.Kind) })
		if f.Status == 0 {
			panic(http.ErrAbortHandler)
		}
		f.error(x).write(w)
	}
}

// error returns the error response of a fault.
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
	return x.refuse(status, orElse(f.Code, code), orElse(f.Message, message), f.Kind).withRetryAfter(f.RetryAfter)
}

func (p reply) withRetryAfter(seconds *int) reply {
	if seconds != nil {
		p.header.Set("Retry-After", strconv.Itoa(*seconds))
	}
	return p
}

// applyLater executes a call after a delay, unless the tenant is closed by then.
func (t *Tenant) applyLater(delay time.Duration, do func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.closed:
		return
	default:
	}
	var timer *time.Timer
	timer = time.AfterFunc(delay, func() {
		t.mu.Lock() // waits until the timer is stored
		_, due := t.lateWrites[timer]
		t.mu.Unlock()
		if !due {
			return
		}
		do()
		t.mu.Lock()
		delete(t.lateWrites, timer)
		t.mu.Unlock()
	})
	t.lateWrites[timer] = true
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Call counts equal calls. Required, AnyOf, Used and Granted are set if the permissions of the call were checked. A call may be
// granted and still lack a required permission: then Graph left out the properties of some objects.
type Call struct {
	Method   string     `json:"method"`
	Path     string     `json:"path"`     // the path's template with the version, "/v1.0/users/{id}"
	Status   int        `json:"status"`   // 0 when there was no response
	Required []string   `json:"required"` // the least privileged permissions for it
	AnyOf    [][]string `json:"any_of"`   // of each list, one alternative is required; "A + B" means both
	Used     []string   `json:"used"`     // the least privileged of the granted permissions that sufficed
	Granted  bool       `json:"granted"`
	Fault    string     `json:"fault,omitempty"`
	Count    int        `json:"count"`
}

// demand records that the call needs one of the alternatives, and reports whether one is granted.
func (c *Call) demand(alternatives anyOf, isGranted func(string) bool) bool {
	c.AnyOf = append(c.AnyOf, alternatives)
	c.Required = addNames(c.Required, alternatives[0])
	i := slices.IndexFunc(alternatives, isGranted)
	if i >= 0 {
		c.Used = addNames(c.Used, alternatives[i])
	}
	return i >= 0
}

// Entry is one call. Entries are in the order in which the calls were handled.
type Entry struct {
	N         int    `json:"n"`
	Time      string `json:"time"`
	Method    string `json:"method"`
	Path      string `json:"path"` // as requested, without the query
	Status    int    `json:"status"`
	RequestID string `json:"request_id,omitempty"`
	Fault     string `json:"fault,omitempty"`
	Digest    string `json:"digest,omitempty"` // equal for equal bodies; the body itself is not kept, because it may contain a secret
}

// callLog contains counters and the last calls.
type callLog struct {
	calls   []*Call
	recent  []Entry
	changes []Entry
	n       int
}

// The number of single calls that are kept, and of write calls. More write calls are kept, so that a long test can read them at
// its end.
const (
	keptCalls   = 500
	keptChanges = 20000
)

// count records a call. The caller holds t.mu.
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

// digest returns a hash that distinguishes bodies without revealing them.
func digest(body []byte) string {
	if len(body) == 0 {
		return ""
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}
