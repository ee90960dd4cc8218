package entra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/microsoftgraph/msgraph-sdk-go/models/odataerrors"
)

// The sentinels that an *Error can match with errors.Is. If it matches none of them, its status, code and message say why Graph refused.
var (
	// ErrNotFound: there is no such account or method. A delete that finds nothing also returns it; whether that counts as done is the caller's decision.
	ErrNotFound = errors.New("not found in Entra")
	// ErrThrottled: Graph asks to wait (429, or 503 with Retry-After) for longer than the call's time. Nothing was done, unless Unsure.
	ErrThrottled = errors.New("throttled by Microsoft Graph")
	// ErrForbidden: the app lacks a permission or, for some targets, a directory role (403).
	ErrForbidden = errors.New("refused by Microsoft Graph")
	// ErrDefaultMethod: the default method can only be deleted as the last one.
	ErrDefaultMethod = errors.New("the default method must be deleted last")
	// ErrSynced: the account is mastered by an on-premises directory.
	ErrSynced = errors.New("mastered on-premises")
	// ErrUnreachable: there was no answer, no readable one, or only that of a failing service (5xx). See Unsure.
	ErrUnreachable = errors.New("no answer from Microsoft Graph")
	// ErrLicense: the tenant has no licence for the feature that the call is part of.
	ErrLicense = errors.New("not licensed in this tenant")
	// ErrSignIn: Entra refuses Countersign itself: a wrong or expired secret or certificate, a wrong tenant, a rejected token.
	ErrSignIn = errors.New("sign-in of the app refused by Entra")
)

// Error says what went wrong with one call to Graph, or with the sign-in before it. RequestID and ClientRequestID are what
// Microsoft's support asks for. https://learn.microsoft.com/graph/errors
type Error struct {
	Status          int    // of the last HTTP answer; 0 if there was none
	Code            string // Graph's, e.g. accessDenied
	Message         string // Graph's or the network's; text from elsewhere
	RequestID       string
	ClientRequestID string
	Call            string        // the call in words: see Call
	Permission      Permission    // the least privileged application permission of the call
	RetryAfter      time.Duration // what Graph asked for; 0 if it did not say
	// Unsure is true if a request that changes something may have been executed in spite of the error: it was sent, or may have
	// been, and no answer came, or only one that does not tell (408, 500, 502, 504, and 503 without Retry-After).
	// The caller must then read the account before trying again.
	Unsure bool

	cause error
}

// Is reports whether the error matches one of the sentinels above.
func (e *Error) Is(target error) bool {
	fromGraph := e.Call != string(CallSignIn) // Graph's answer, not that of the sign-in
	switch target {
	case ErrNotFound:
		// A 404 without Graph's own error body comes from a proxy or a wrong address; "No HTTP resource" is a path that does not exist.
		return fromGraph && e.Status == http.StatusNotFound && e.Code != "" && !strings.Contains(e.Message, "No HTTP resource was found")
	case ErrThrottled:
		return e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable && e.RetryAfter > 0
	case ErrForbidden:
		return fromGraph && e.Status == http.StatusForbidden && !e.Is(ErrLicense)
	case ErrDefaultMethod:
		return fromGraph && e.Status == http.StatusBadRequest && isDefaultMethodMessage(e.Message)
	case ErrSynced:
		return fromGraph && e.Status == http.StatusBadRequest && strings.Contains(e.Message, "on-premises mastered")
	case ErrUnreachable:
		return (e.Status < 300 || e.Status >= 500) && !e.Is(ErrThrottled) && !e.Is(ErrSignIn)
	case ErrLicense:
		return fromGraph && (e.Code == "AadPremiumLicenseRequired" || strings.HasPrefix(e.Code, "Authentication_RequestFromNonPremiumTenant"))
	case ErrSignIn:
		if fromGraph {
			return e.Status == http.StatusUnauthorized
		}
		return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests
	}
	return false
}

// isDefaultMethodMessage recognises the two sentences with which Graph refuses to delete the default method.
func isDefaultMethodMessage(message string) bool {
	m := strings.ToLower(message)
	return strings.Contains(m, "cannot delete default method") || strings.Contains(m, "current default authentication method")
}

// Unwrap returns the cause, for example context.Canceled.
func (e *Error) Unwrap() error { return e.cause }

// Error returns a sentence that says what failed and, if this is known, what to do about it.
func (e *Error) Error() string {
	var b strings.Builder
	switch {
	case e.Is(ErrSignIn):
		b.WriteString("Entra refused Countersign's own sign-in; check the tenant, the client id and that the secret or certificate has not expired")
	case e.Is(ErrThrottled):
		fmt.Fprintf(&b, "Microsoft Graph is throttling and did not %s; try again", e.Call)
		if e.RetryAfter > 0 {
			fmt.Fprintf(&b, " in %s", e.RetryAfter.Round(time.Second))
		} else {
			b.WriteString(" later")
		}
	case e.Is(ErrForbidden):
		fmt.Fprintf(&b, "Microsoft Graph refused to %s; an administrator must grant the app the application permission %s", e.Call, e.Permission)
		if w := e.Permission.Wider(); w != "" {
			fmt.Fprintf(&b, " (or %s)", w)
		}
		if e.Call == string(CallSetEnabled) {
			b.WriteString(" and, for accounts that hold a directory role, a directory role that may manage them")
		}
		if e.Call == string(CallSetPassword) {
			b.WriteString(" and assign the directory role User Administrator to its service principal")
		}
	case e.Is(ErrDefaultMethod):
		fmt.Fprintf(&b, "Microsoft Graph refused to %s; it is the default method: delete the other ones first, or have another default chosen", e.Call)
	case e.Is(ErrSynced):
		fmt.Fprintf(&b, "Microsoft Graph refused to %s; the account comes from an on-premises directory and must be changed there", e.Call)
	case e.Is(ErrLicense):
		fmt.Fprintf(&b, "this tenant has no licence that lets Microsoft Graph %s", e.Call)
	case e.Is(ErrUnreachable) && e.Unsure:
		fmt.Fprintf(&b, "Microsoft Graph was asked to %s and did not say whether it did; check the account before trying again", e.Call)
	case e.Is(ErrUnreachable):
		fmt.Fprintf(&b, "no usable answer when asking to %s; try again, and check the network if it stays so", e.Call)
	case e.Is(ErrNotFound):
		fmt.Fprintf(&b, "Microsoft Graph could not %s: there is none", e.Call)
	default:
		fmt.Fprintf(&b, "Microsoft Graph did not %s", e.Call)
	}
	if detail := e.detail(); detail != "" {
		fmt.Fprintf(&b, " (%s)", detail)
	}
	return b.String()
}

// detail returns the facts for support and for the audit log: status, code, Graph's sentence, request id.
func (e *Error) detail() string {
	var d []string
	if e.Status != 0 || e.Code != "" {
		d = append(d, strings.TrimSpace(strings.TrimPrefix(fmt.Sprintf("%d %s", e.Status, e.Code), "0 ")))
	}
	if e.Message != "" {
		d = append(d, e.Message)
	}
	if e.RequestID != "" {
		d = append(d, "request-id "+e.RequestID)
	}
	return strings.Join(d, "; ")
}

// explain makes an *Error of the error that a call returned and its callTrace.
func explain(call Call, err error, w *callTrace) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	status, header, unsure := w.outcome()
	e := &Error{Call: string(call), Permission: call.Permission(), Status: status, Unsure: unsure,
		RequestID: header.Get("request-id"), ClientRequestID: header.Get("client-request-id"), cause: err}
	e.RetryAfter, _ = retryAfter(header)

	if t, ok := errors.AsType[*tokenError](err); ok {
		e.Call, e.Permission, e.RetryAfter, e.Unsure = string(CallSignIn), "", 0, false
		e.Status, e.Code, e.Message = t.reason()
		return e
	}
	if o, ok := errors.AsType[*odataerrors.ODataError](err); ok {
		if m := o.GetErrorEscaped(); m != nil {
			e.Code, e.Message = deref(m.GetCode()), oneLine(deref(m.GetMessage()))
			if in := m.GetInnerError(); in != nil {
				e.RequestID = firstNonEmpty(deref(in.GetRequestId()), e.RequestID)
				e.ClientRequestID = firstNonEmpty(deref(in.GetClientRequestId()), e.ClientRequestID)
			}
		}
		return e
	}
	ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	switch {
	case ended && status >= 400:
		e.Message = "no time was left to try again"
	case !ended && status != 0 && !errors.Is(err, errEmpty) && !strings.HasPrefix(header.Get("Content-Type"), "application/json"):
		e.Message = "the answer is not Graph's; is there a proxy in between?"
	default:
		// url.Error repeats the address, which contains the account.
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		e.Message = oneLine(err.Error())
	}
	return e
}

// tokenError marks a failure to get an access token, before Graph was called.
type tokenError struct{ err error }

func (t *tokenError) Error() string { return t.err.Error() }
func (t *tokenError) Unwrap() error { return t.err }

// reason reads Entra's answer to the sign-in: its status, the OAuth error code and the first line of the description (AADSTS…).
func (t *tokenError) reason() (status int, code, message string) {
	if errors.Is(t.err, context.Canceled) || errors.Is(t.err, context.DeadlineExceeded) {
		return 0, "", "the sign-in took too long"
	}
	a, ok := errors.AsType[*azidentity.AuthenticationFailedError](t.err)
	if !ok || a.RawResponse == nil {
		return 0, "", oneLine(t.err.Error())
	}
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if body, err := runtime.Payload(a.RawResponse); err == nil {
		_ = json.Unmarshal(body, &answer) // not JSON: only the status is known
	}
	line, _, _ := strings.Cut(answer.Description, "\n")
	line, _, _ = strings.Cut(line, " Trace ID:")
	return a.RawResponse.StatusCode, answer.Error, oneLine(line)
}

// oneLine keeps a message from elsewhere short and on one line.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 300 {
		s = string(r[:299]) + "…"
	}
	return s
}

func firstNonEmpty(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
