package commands

import (
	"context"
	"slices"
	"testing"
	"time"

	"countersign/approvals"
	"countersign/entra"
	"countersign/internal/testnet"
	"countersign/sandbox"
	graph "countersign/sandbox/entra"
	"countersign/sandbox/slack"
)

// stage is the story world with a Tenant that looks at it. Tests of what
// takes time, or has to be done in time, stand on it in a bubble of
// testing/synctest.
type stage struct {
	*testing.T
	api    *sandbox.Client
	tenant *Tenant
	secret string // the prepared one, as the runner keeps it
}

func newStage(t *testing.T, change ...func(*sandbox.Company, *graph.Options)) *stage {
	t.Helper()
	world := sandbox.Fernhill(time.Now())
	tune := func(*slack.Options, *graph.Options) {}
	if len(change) > 0 {
		tune = func(_ *slack.Options, o *graph.Options) {
			for _, f := range change {
				f(&world, o)
			}
		}
	}
	network := testnet.New()
	box, err := sandbox.New(sandbox.Options{Manifest: Manifest("entra-"), Company: &world, Tune: tune, Granted: granted(), Listener: network, Dial: network.Dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { box.Close() })
	credential, err := entra.NewCredential(entra.CredentialOptions{Kind: "secret", Tenant: sandbox.TenantID, ClientID: sandbox.ClientID,
		Secret: sandbox.ClientSecret, Authority: box.SecureURL(), HTTP: box.HTTPClient(), TrustAuthority: true})
	if err != nil {
		t.Fatal(err)
	}
	client, err := entra.New(entra.Options{Graph: box.SecureURL(), Credential: credential, Transport: box.HTTPClient().Transport})
	if err != nil {
		t.Fatal(err)
	}
	return &stage{T: t, api: box.Client(), tenant: NewTenant(client, []string{sandbox.GroupExecutives})}
}

// granted is what the README tells an administrator to grant.
func granted() []string {
	var all []string
	for _, p := range Permissions() {
		all = append(all, string(p))
	}
	return all
}

// plan plans a command for somebody, with arguments given as pairs of field
// and canonical value.
func (s *stage) plan(name, id string, args ...string) (approvals.Plan, error) {
	s.Helper()
	in := Input{Command: command(s.T, name)}
	for i := 0; i < len(args); i += 2 {
		if Field(args[i]) == FieldVerified {
			in.Verified = args[i+1]
			continue
		}
		in.setArg(Field(args[i]), args[i+1])
	}
	return s.tenant.Plan(s.Context(), in, approvals.Person{ID: id, Slack: "U1"})
}

// request plans a command for somebody and makes a request of it that is
// about to run.
func (s *stage) request(name, id string, args ...string) approvals.Request {
	s.Helper()
	p, err := s.plan(name, id, args...)
	if err != nil {
		s.Fatal(err)
	}
	return s.requestOf(p, args...)
}

func (s *stage) requestOf(p approvals.Plan, args ...string) approvals.Request {
	r := approvals.Request{ID: "R1", Plan: p, Journal: make([]approvals.JournalEntry, len(p.Steps))}
	if i := slices.Index(args, string(FieldVerified)); i >= 0 {
		r.Verified = args[i+1]
	}
	return r
}

// work does one job within ten seconds, the time of a Graph call.
func (s *stage) work(kind approvals.JobKind, r approvals.Request, step int) approvals.Result {
	s.Helper()
	return s.workWithin(10*time.Second, kind, r, step)
}

func (s *stage) workWithin(d time.Duration, kind approvals.JobKind, r approvals.Request, step int) approvals.Result {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), d)
	defer cancel()
	job := approvals.Job{Kind: kind, Request: r, Step: step}
	if step >= 0 && r.Plan.Steps[step].Secret == approvals.SecretPrepared {
		if s.secret == "" {
			s.secret = s.tenant.Work(ctx, approvals.Job{Kind: approvals.JobPrepare, Request: r, Step: step}).Secret
		}
		job.Secret = s.secret
	}
	return s.tenant.Work(ctx, job)
}

// begin journals a step as started, as the runner does before each call.
func begin(r approvals.Request, step int) approvals.Request {
	r.Journal = slices.Clone(r.Journal)
	r.Journal[step] = approvals.JournalEntry{State: approvals.StepStarted, Started: time.Now()}
	return r
}

// run does what the runner does with a request that it has claimed.
func (s *stage) run(r approvals.Request) approvals.Request {
	s.Helper()
	if got := s.work(approvals.JobCheck, r, -1); got.State != approvals.StepDone {
		s.Fatalf("the check of a fresh plan: %+v", got)
	}
	for i, step := range r.Plan.Steps {
		if step.ByPeople {
			r.Journal[i].State = approvals.StepHandedOff
			continue
		}
		r = begin(r, i)
		got := s.work(approvals.JobRun, r, i)
		r.Journal[i].State, r.Journal[i].Detail, r.Journal[i].RequestID = got.State, got.Detail, got.RequestID
	}
	return r
}

// user is the account as it really is.
func (s *stage) user(id string) sandbox.User {
	s.Helper()
	u, err := s.api.User(id)
	if err != nil {
		s.Fatal(err)
	}
	return u
}

func (s *stage) has(id, methodID string) bool {
	s.Helper()
	return slices.ContainsFunc(s.user(id).Methods, func(m sandbox.Method) bool { return m.ID == methodID })
}

func (s *stage) patch(id string, changes map[string]any) {
	s.Helper()
	if err := s.api.PatchUser(id, changes); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) faults(f ...graph.Fault) {
	s.Helper()
	if err := s.api.SetEntraFaults(f...); err != nil {
		s.Fatal(err)
	}
}

// stepOf is the first step of a plan with this Op.
func stepOf(t testing.TB, p approvals.Plan, op string) int {
	t.Helper()
	i := slices.IndexFunc(p.Steps, func(s approvals.Step) bool { return s.Op == op })
	if i < 0 {
		t.Fatalf("the plan has no step %s: %+v", op, p.Steps)
	}
	return i
}

func wordsOf(steps []approvals.Step) []string {
	var words []string
	for _, s := range steps {
		words = append(words, s.Words)
	}
	return words
}
