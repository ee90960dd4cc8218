package testnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// A server and its client wait for a day, and no time passes outside.
func TestADayPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(24 * time.Hour)
			io.WriteString(w, "good morning")
		})}
		go server.Serve(n)
		defer server.Close()
		transport := &http.Transport{DialContext: n.Dial}
		defer transport.CloseIdleConnections()
		begin := time.Now()
		answer, err := (&http.Client{Transport: transport}).Get("http://" + n.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if text, err := io.ReadAll(answer.Body); string(text) != "good morning" || time.Since(begin) != 24*time.Hour {
			t.Errorf("after %s: %q, %v", time.Since(begin), text, err)
		}
	})
}

func TestNobodyIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Dial(ctx, "", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dialled where nobody accepts: %v", err)
		}
		n.Close()
		n.Close()
		if _, err := n.Dial(t.Context(), "", ""); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("dialled behind the end: %v", err)
		}
		if _, err := n.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepted behind the end: %v", err)
		}
	})
}
