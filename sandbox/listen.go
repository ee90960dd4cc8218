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

// firstByteTimeout is how long a connection may stay silent before it has said which of the two it is.
const firstByteTimeout = 10 * time.Second

// splitter shares one listener between two servers: what begins like TLS goes to secure, the rest to plain.
type splitter struct {
	listener      net.Listener
	plain, secure *branch
	timeout       time.Duration
	done          chan struct{}
	once          sync.Once

	mu     sync.Mutex
	silent map[net.Conn]bool // connections that have not said anything yet
	work   sync.WaitGroup
}

func newSplitter(l net.Listener) *splitter {
	s := &splitter{listener: l, timeout: firstByteTimeout, done: make(chan struct{}), silent: map[net.Conn]bool{}}
	s.plain = &branch{s, make(chan net.Conn)}
	s.secure = &branch{s, make(chan net.Conn)}
	return s
}

// run accepts connections until the splitter is closed.
func (s *splitter) run() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil { // such as too many open files: give others time to close some
			select {
			case <-s.done:
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		s.work.Go(func() { s.sort(conn) })
	}
	s.work.Wait()
}

// sort reads the first byte of a connection and hands it on. It has a goroutine of its own, so that a client that connects and
// says nothing holds up nobody else.
func (s *splitter) sort(conn net.Conn) {
	if !s.watch(conn, true) {
		conn.Close()
		return
	}
	first := make([]byte, 1)
	conn.SetReadDeadline(time.Now().Add(s.timeout)) // fails only on a closed connection, which the read finds out
	_, err := conn.Read(first)
	s.watch(conn, false)
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
	case to.conns <- &sorted{Conn: conn, first: first}:
	case <-s.done:
		conn.Close()
	}
}

// watch notes that a connection is silent, or no longer. It reports false when the splitter is closed.
func (s *splitter) watch(conn net.Conn, silent bool) bool {
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

// Close stops listening and closes the connections that nobody serves yet.
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

// branch is the net.Listener that one of the two servers sees.
type branch struct {
	splitter *splitter
	conns    chan net.Conn
}

func (b *branch) Accept() (net.Conn, error) {
	select {
	case conn := <-b.conns:
		return conn, nil
	case <-b.splitter.done:
		return nil, net.ErrClosed
	}
}

func (b *branch) Close() error   { return b.splitter.Close() }
func (b *branch) Addr() net.Addr { return b.splitter.listener.Addr() }

// sorted is a connection whose first byte has been read; it gives that byte back before the rest.
type sorted struct {
	net.Conn
	first []byte
}

func (c *sorted) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite lets net/http end a response the gentle way, as on a plain TCP connection.
func (c *sorted) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// authority is a certificate authority that was made for one run, with the one certificate it has signed. Its key is forgotten.
type authority struct {
	pem  []byte
	pool *x509.CertPool
	leaf tls.Certificate
}

// newAuthority makes an authority and a certificate for this machine's own names and for host.
func newAuthority(host string) (*authority, error) {
	from, to := time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the sandbox's certificate authority: %w", err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Sandbox authority, made for one run"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("making the sandbox's certificate authority: %w", err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the sandbox's certificate: %w", err)
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
		return nil, fmt.Errorf("making the sandbox's certificate: %w", err)
	}
	a := &authority{
		pem:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		pool: x509.NewCertPool(),
		leaf: tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey},
	}
	a.pool.AppendCertsFromPEM(a.pem)
	return a, nil
}
