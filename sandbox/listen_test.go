package sandbox

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"countersign/internal/testnet"
)

// split starts a splitter with a server on each branch that responds with its own name.
func split(t *testing.T, l net.Listener, timeout time.Duration) (address string, a *authority) {
	t.Helper()
	a, err := newAuthority("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s := newSplitter(l)
	s.timeout = timeout
	say := func(name string) *http.Server {
		return &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) })}
	}
	plain, secure := say("plain"), say("secure")
	secure.TLSConfig = &tls.Config{Certificates: []tls.Certificate{a.leaf}}
	done := make(chan struct{}, 3)
	go func() { s.run(); done <- struct{}{} }()
	go func() { plain.Serve(s.plain); done <- struct{}{} }()
	go func() { secure.ServeTLS(s.secure, "", ""); done <- struct{}{} }()
	t.Cleanup(func() {
		s.Close()
		plain.Close()
		secure.Close()
		for range 3 {
			<-done
		}
	})
	return l.Addr().String(), a
}

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	answer, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFirstByteDecides(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, a := split(t, l, time.Minute)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool}}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	if got := get(t, c, "http://"+address); got != "plain" {
		t.Errorf("plain HTTP went to %s", got)
	}
	if got := get(t, c, "https://"+address); got != "secure" {
		t.Errorf("TLS went to %s", got)
	}
}

// TestSilentConnections: a connection that sends nothing does not delay others, and is closed after the timeout.
func TestSilentConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testnet.New()
		address, _ := split(t, network, 200*time.Millisecond)
		silent, err := network.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: network.Dial}}
		if got := get(t, c, "http://"+address); got != "plain" {
			t.Errorf("beside a silent connection: %s", got)
		}
		silent.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a silent connection ended with %v, want EOF", err)
		}
	})
}

// TestSlowRequest: the timeout is for the first byte only; the rest may take longer.
func TestSlowRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 100 * time.Millisecond
		network := testnet.New()
		split(t, network, limit)
		conn, err := network.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "G") // the connection is dispatched
		conn.SetReadDeadline(time.Now().Add(3 * limit))
		if _, err := conn.Read(make([]byte, 1)); !isTimeout(err) {
			t.Fatalf("the connection ended after its first byte: %v", err)
		}
		io.WriteString(conn, "ET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		answer, err := io.ReadAll(conn)
		if err != nil || len(answer) < 20 || string(answer[:15]) != "HTTP/1.1 200 OK" {
			t.Errorf("%v: %s", err, answer)
		}
	})
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// TestCloseWhileSilent: Close does not wait for connections that have not sent anything.
func TestCloseWhileSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSplitter(l)
	ended := make(chan struct{})
	go func() { s.run(); close(ended) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.Close()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the splitter does not end")
	}
	if _, err := s.plain.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the end: %v", err)
	}
}
