package writes

import (
	"slices"
	"strings"
	"sync"
	"testing"
)

// How is a way in which a write fails. To whoever makes it both look alike.
type How int

const (
	NotApplied How = iota // it never arrived
	Applied               // it took effect, and that was never heard
)

func (h How) String() string {
	if h == Applied {
		return "failed but applied"
	}
	return "failed and not applied"
}

// Pairs attacks each of these writes in both ways, each in a test of its own.
//
// begin makes the ground for one of the ways and gives the attack: it plays a
// story in which the write is made, has a [Saboteur] let that fail, ends the
// process there, goes on with another one, and looks at everything that must
// hold. Where it has no story, or nothing was struck, it fails.
func Pairs(t *testing.T, list []Write, begin func(*testing.T, How) (attack func(*testing.T, Write))) {
	if len(list) == 0 {
		t.Fatal("there is no write to attack")
	}
	for _, how := range []How{NotApplied, Applied} {
		t.Run(how.String(), func(t *testing.T) {
			attack := begin(t, how)
			for _, w := range list {
				t.Run(strings.TrimSpace(w.Where+" "+w.API), func(t *testing.T) { attack(t, w) })
			}
		})
	}
}

// Saboteur stands between a process and the world. It lets writes fail that it
// was armed for, each once, and it notices writes that are on no list.
type Saboteur struct {
	sources *Sources

	mu        sync.Mutex
	armed     []*Strike
	strangers []string
}

// Strike is the failing of one write.
type Strike struct {
	Write Write
	How   How

	by  *Saboteur
	met chan struct{}
}

// NewSaboteur makes one that lets everything pass. Sources may be shared.
func NewSaboteur(s *Sources) *Saboteur { return &Saboteur{sources: s} }

// Arm lets the next write of this kind fail.
func (s *Saboteur) Arm(w Write, how How) *Strike {
	s.mu.Lock()
	defer s.mu.Unlock()
	strike := &Strike{Write: w, How: how, by: s, met: make(chan struct{})}
	s.armed = append(s.armed, strike)
	return strike
}

// Next is asked before each call that may be a write, in its goroutine, with
// what is called in the world as the list has it. The call has to fail where
// there is a strike, and whoever lets it says Hit when it has.
func (s *Saboteur) Next(api string) *Strike {
	where, stranger := s.sources.Here()
	if where != "" && !slices.ContainsFunc(All(), func(w Write) bool { return w.Where == where && (w.API == "" || w.API == api) }) {
		stranger = where + " calls " + api
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if stranger != "" && !slices.Contains(s.strangers, stranger) {
		s.strangers = append(s.strangers, stranger)
	}
	for i, strike := range s.armed {
		if w := strike.Write; where != "" && w.Where == where && (w.API == "" || w.API == api) {
			s.armed = slices.Delete(s.armed, i, i+1)
			return strike
		}
	}
	return nil
}

// Strangers are the writes so far that are not on the list.
func (s *Saboteur) Strangers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.strangers)
}

// Hit says that the write failed as it was to.
func (s *Strike) Hit() { close(s.met) }

// Missed says that the call was none yet that could fail so: the next one is to.
func (s *Strike) Missed() {
	s.by.mu.Lock()
	defer s.by.mu.Unlock()
	s.by.armed = append(s.by.armed, s)
}

// Met is closed when the write has failed.
func (s *Strike) Met() <-chan struct{} { return s.met }

// HasMet says whether it has.
func (s *Strike) HasMet() bool {
	select {
	case <-s.met:
		return true
	default:
		return false
	}
}
