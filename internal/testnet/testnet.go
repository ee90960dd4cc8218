// Package testnet is a network within the process of a test.
//
// A test that runs in a bubble of testing/synctest waits for hours in no time,
// and however busy the machine is, none of its deadlines passes while somebody
// still works. But whoever waits for a real socket is at work, as far as the
// bubble knows. On this network they wait as for a channel.
//
// Only tests import this package.
package testnet

import (
	"context"
	"io"
	"net"
	"sync"
)

// Network is a listener at 127.0.0.1:80, and the only way to it. Make it with
// New, within the bubble in which it is used.
type Network struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// New returns a network that nobody listens to yet.
func New() *Network {
	return &Network{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Dial connects to the listener, whatever the address is. It fits in
// http.Transport and websocket.Dialer.
func (n *Network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case n.conns <- far:
		return near, nil
	case <-n.closed:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: io.ErrClosedPipe}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: ctx.Err()}
	}
}

// Accept returns the next connection.
func (n *Network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial. Connections that are there stay.
func (n *Network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// Addr is an address for URLs.
func (n *Network) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}
}
