package approvals

import (
	"errors"
	"fmt"
	"time"
)

// Timing is every duration of the engine. Crash tests run with leases of 300
// milliseconds, production with Default.
type Timing struct {
	RunWithin  time.Duration `yaml:"run_within"`  // an approved request that nobody started by then expires; containment has run_for on top
	RunFor     time.Duration `yaml:"run_for"`     // a request that Graph keeps throttling is given up after so long
	Remind     time.Duration `yaml:"remind"`      // between two reminders of what people have to do by hand, or to review
	Warn       time.Duration `yaml:"warn"`        // how long before its end a request that nobody decided is reminded of
	SecretLife time.Duration `yaml:"secret_life"` // how long a password or pass can be revealed
	GraphCall  time.Duration `yaml:"graph_call"`  // one call with its waits and retries
	GraphGrace time.Duration `yaml:"graph_grace"` // how long Graph may go on working on a call we gave up (60 s by its documentation)
	Lease      time.Duration `yaml:"lease"`       // of a running request, renewed with every journal entry
	Sweep      time.Duration `yaml:"sweep"`       // between two looks at what is due
	LookUps    time.Duration `yaml:"look_ups"`    // how long a look-up of a person is retried before the answer is no
	Takeover   time.Duration `yaml:"takeover"`    // idle time after which a dead reader's inbox entry is taken over
	InboxWrite time.Duration `yaml:"inbox_write"` // how long Slack's ack waits for Redis; under 3 s
	Stale      time.Duration `yaml:"stale"`       // an inbox entry older than this is not carried out
	AuditLag   time.Duration `yaml:"audit_lag"`   // the runner claims nothing while the audit lags by more
	Follow     time.Duration `yaml:"follow"`      // how long one blocking read of the event log waits
	Lead       time.Duration `yaml:"lead"`        // lease of a projection's reader
	Outage     time.Duration `yaml:"outage"`      // people are told when Redis has not answered for so long
}

// DefaultTiming is for production.
func DefaultTiming() Timing {
	return Timing{
		RunWithin: 10 * time.Minute, RunFor: 20 * time.Minute, Remind: 4 * time.Hour, Warn: 10 * time.Minute, SecretLife: 15 * time.Minute,
		GraphCall: 20 * time.Second, GraphGrace: 60 * time.Second, Lease: 2 * time.Minute,
		Sweep: 500 * time.Millisecond, LookUps: 30 * time.Second, Takeover: 90 * time.Second, InboxWrite: 1500 * time.Millisecond,
		Stale: 10 * time.Minute, AuditLag: time.Minute, Follow: time.Second, Lead: 10 * time.Second, Outage: 20 * time.Second,
	}
}

// warning is how long before its end a request of this lifetime is reminded
// of: at half of its life at the earliest.
func (t Timing) warning(lifetime time.Duration) time.Duration {
	return min(t.Warn, lifetime/2)
}

// start is how long an approved request waits for its start. Containment waits
// for the end of whatever runs for the same target as well, also where Graph
// throttles that: it may come late, but not for nothing.
func (t Timing) start(class Class) time.Duration {
	if class == ClassContain {
		return t.RunWithin + t.RunFor
	}
	return t.RunWithin
}

// Check refuses timings under which the engine's promises do not hold.
func (t Timing) Check() error {
	for _, d := range []struct {
		name string
		long time.Duration
	}{
		{"run_within", t.RunWithin}, {"run_for", t.RunFor}, {"remind", t.Remind}, {"warn", t.Warn}, {"secret_life", t.SecretLife},
		{"graph_call", t.GraphCall}, {"lease", t.Lease}, {"sweep", t.Sweep}, {"look_ups", t.LookUps}, {"takeover", t.Takeover},
		{"inbox_write", t.InboxWrite}, {"stale", t.Stale}, {"audit_lag", t.AuditLag}, {"follow", t.Follow}, {"lead", t.Lead}, {"outage", t.Outage},
	} {
		if d.long <= 0 {
			return fmt.Errorf("timing.%s must be more than zero", d.name)
		}
	}
	switch {
	case t.GraphGrace < 0:
		return errors.New("timing.graph_grace must not be less than zero")
	case t.RunWithin > 24*time.Hour:
		return errors.New("timing: run_within must be at most 24h, or what was approved long ago would still be started")
	case t.Lease <= t.LookUps+t.GraphCall+t.GraphGrace:
		return errors.New("timing: lease must be longer than look_ups plus graph_call plus graph_grace, or a second worker could start while the first one's call is still at work")
	case t.RunFor > preparedLife/2:
		return fmt.Errorf("timing: run_for must be at most %s, or a password that a request has prepared could be gone before the request is", preparedLife/2)
	case t.Takeover <= t.LookUps:
		return errors.New("timing: takeover must be longer than look_ups, or a slow look-up would be done twice")
	case t.Lead < 3*t.Follow:
		return errors.New("timing: lead must be at least three times follow, or a projection's reader would lose its lease while it waits")
	case t.InboxWrite > 2*time.Second:
		return errors.New("timing: inbox_write must be at most 2s, because Slack waits three seconds for an answer")
	}
	return nil
}
