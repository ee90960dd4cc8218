package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// A TLS connection begins with a handshake record, whose first byte is 22 (RFC 8446, section 5.1). No HTTP method does.
const tlsHandshake = 22

// firstByteTimeout is how long a connection may take to send its first byte, which decides between TLS and plain HTTP.
const firstByteTimeout = 10 * time.Second

// splitter shares one listener between two servers: connections that begin with a TLS handshake go to secure, the others to plain.
type splitter struct {
	listener      net.Listener
	plain, secure *branchListener
	timeout       time.Duration
	done          chan struct{}
	once          sync.Once

	mu     sync.Mutex
	silent map[net.Conn]bool // connections that have not sent a byte yet
	work   sync.WaitGroup
}

func newSplitter(l net.Listener) *splitter {
	s := &splitter{listener: l, timeout: firstByteTimeout, done: make(chan struct{}), silent: map[net.Conn]bool{}}
	s.plain = &branchListener{s, make(chan net.Conn)}
	s.secure = &branchListener{s, make(chan net.Conn)}
	return s
}

// run accepts connections until the splitter is closed.
func (s *splitter) run() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil { // such as too many open files: wait until some are closed
			select {
			case <-s.done:
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		s.work.Go(func() { s.dispatch(conn) })
	}
	s.work.Wait()
}

// dispatch reads the first byte of a connection and passes the connection to the right branch. Each connection has its own
// goroutine, so that a client that sends nothing does not delay others.
func (s *splitter) dispatch(conn net.Conn) {
	if !s.setSilent(conn, true) {
		conn.Close()
		return
	}
	first := make([]byte, 1)
	conn.SetReadDeadline(time.Now().Add(s.timeout)) // fails only on a closed connection; then the read fails too
	_, err := conn.Read(first)
	s.setSilent(conn, false)
	if err != nil {
		conn.Close()
		return
	}
	conn.SetReadDeadline(time.Time{})
	to := s.plain
	if first[0] == tlsHandshake {
		to = s.secure
	}
	select {
	case to.conns <- &peekedConn{Conn: conn, first: first}:
	case <-s.done:
		conn.Close()
	}
}

// setSilent records whether a connection is still silent. It returns false when the splitter is closed.
func (s *splitter) setSilent(conn net.Conn, silent bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if silent {
		s.silent[conn] = true
	} else {
		delete(s.silent, conn)
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// Close stops listening and closes the connections that have not been dispatched yet.
func (s *splitter) Close() error {
	s.once.Do(func() {
		close(s.done)
		s.listener.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for conn := range s.silent {
			conn.Close()
		}
	})
	return nil
}

// branchListener is the net.Listener of one of the two servers.
type branchListener struct {
	splitter *splitter
	conns    chan net.Conn
}

func (b *branchListener) Accept() (net.Conn, error) {
	select {
	case conn := <-b.conns:
		return conn, nil
	case <-b.splitter.done:
		return nil, net.ErrClosed
	}
}

func (b *branchListener) Close() error   { return b.splitter.Close() }
func (b *branchListener) Addr() net.Addr { return b.splitter.listener.Addr() }

// peekedConn is a connection whose first byte has already been read; Read returns that byte first.
type peekedConn struct {
	net.Conn
	first []byte
}

func (c *peekedConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite lets net/http close the write side of the connection, as on a plain TCP connection.
func (c *peekedConn) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// authority is a certificate authority that was created for one run, and the one certificate that it signed. Its key is not kept.
type authority struct {
	pem  []byte
	pool *x509.CertPool
	leaf tls.Certificate
}

// newAuthority creates an authority and a certificate for this machine's own names and for host.
func newAuthority(host string) (*authority, error) {
	from, to := time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("creating the sandbox's certificate authority: %w", err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Sandbox authority, made for one run"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("creating the sandbox's certificate authority: %w", err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("creating the sandbox's certificate: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Sandbox"}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = append(leaf.IPAddresses, ip)
	} else if host != "localhost" {
		leaf.DNSNames = append(leaf.DNSNames, host)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &leafKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("creating the sandbox's certificate: %w", err)
	}
	a := &authority{
		pem:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		pool: x509.NewCertPool(),
		leaf: tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey},
	}
	a.pool.AppendCertsFromPEM(a.pem)
	return a, nil
}
