package node

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/p2pnode/p2pnode/node/proxy"
)

// proxyAccess says who may use the proxy, as the configuration does.
func (c Config) proxyAccess() (proxy.Access, error) {
	a := proxy.Access{MaxRequests: c.ProxyRequests, Rate: float64(c.ProxyRate)}
	if c.ProxyUsers == "" {
		return a, nil
	}
	users, err := loadUsers(c.ProxyUsers)
	if err != nil {
		return a, &FieldError{"proxy-users", c.ProxyUsers, err.Error()}
	}
	a.Users = checkUsers(users, bcrypt.CompareHashAndPassword)
	return a, nil
}

// checkUsers checks names and passwords by compare. That a password is wrong takes
// as long to find out for each name, listed or not: the time that a cost means
// doubles from one to the next, so that a cheaper hash and one that nobody has of its
// cost and of each up to the highest take as long together as one of the highest.
func checkUsers(users map[string][]byte, compare func(hash, password []byte) error) func(name, password string) bool {
	highest := bcrypt.MinCost
	for _, hash := range users {
		cost, _ := bcrypt.Cost(hash) // readUsers has seen to that
		highest = max(highest, cost)
	}
	return func(name, password string) bool {
		hash, ok := users[name]
		if !ok {
			hash = noUser(highest)
		}
		if compare(hash, []byte(password)) == nil && ok {
			return true
		}
		cost, _ := bcrypt.Cost(hash)
		for ; cost < highest; cost++ {
			_ = compare(noUser(cost), []byte(password)) // for the time that it takes
		}
		return false
	}
}

// noUser is a hash that no password has.
func noUser(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$000000000000000000000uAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", cost)
}

const (
	maxUsers = 100_000 // in a list
	// maxCost is the highest cost of a hash. A check takes about half a second of one
	// processor then, as all wrong ones do once one hash has that cost, and they are
	// made one at a time; htpasswd -B has 5 where -C does not say another, 10 to 12
	// are usual, and twice as long for each more is for disks, not for logins.
	maxCost = 13
)

func loadUsers(path string) (map[string][]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	defer file.Close()
	return readUsers(file)
}

// readUsers reads lines of name:hash, with hashes of bcrypt as htpasswd -B
// writes them. Empty lines and those that begin with # are passed over.
func readUsers(r io.Reader) (map[string][]byte, error) {
	users := make(map[string][]byte)
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		cost, err := bcrypt.Cost([]byte(hash))
		if !ok || name == "" || err != nil {
			return nil, fmt.Errorf("line %d is not name:hash with a hash of bcrypt: make it by htpasswd -B", n)
		}
		if cost > maxCost {
			return nil, fmt.Errorf("line %d has a hash of cost %d, and %d is the most, so that no login takes seconds: make it anew by htpasswd -B -C 10", n, cost, maxCost)
		}
		if users[name] = []byte(hash); len(users) > maxUsers {
			return nil, fmt.Errorf("has more than %d users", maxUsers)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if len(users) == 0 {
		return nil, errors.New("has no user: make one by htpasswd -B")
	}
	return users, nil
}

// proxyTLS returns how the proxy speaks TLS, nil where it does not.
func (c Config) proxyTLS() (*tls.Config, error) {
	if c.ProxyCert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.ProxyCert, c.ProxyKey)
	if err != nil {
		return nil, &FieldError{"proxy-cert", c.ProxyCert, "cannot be used with " + c.ProxyKey + ": " + err.Error()}
	}
	// HTTP/2 has no absolute form that proxies' clients use.
	t := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if c.ProxyClientCA == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.ProxyClientCA)
	if err != nil {
		return nil, &FieldError{"proxy-client-ca", c.ProxyClientCA, "cannot be read: " + err.Error()}
	}
	t.ClientAuth, t.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !t.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, &FieldError{"proxy-client-ca", c.ProxyClientCA, "holds no certificate in PEM form"}
	}
	return t, nil
}

// checkProxy checks where the proxy listens: what others can reach must say who
// may use it.
func checkProxy(c Config) *FieldError {
	closed := c.ProxyUsers != "" || c.ProxyClientCA != ""
	switch {
	case c.ProxyCert == "" && c.ProxyKey != "", c.ProxyCert != "" && c.ProxyKey == "":
		return &FieldError{"proxy-key", c.ProxyKey, "and proxy-cert go together: give both or neither"}
	case c.ProxyClientCA != "" && c.ProxyCert == "":
		return &FieldError{"proxy-client-ca", c.ProxyClientCA, "needs TLS: give proxy-cert and proxy-key"}
	}
	err := checkHostPort("proxy", c.Proxy)
	if err == nil || !c.ProxyOpen && !closed {
		if err != nil && strings.Contains(err.Rule, "loopback") {
			err.Rule = "is not on loopback: say who may use it with proxy-users or proxy-client-ca, or let everybody with proxy-open"
		}
		return err
	}
	host, port, _ := net.SplitHostPort(c.Proxy) // checkHostPort has looked at the form
	if _, e := netip.ParseAddr(host); e != nil && host != "" {
		return &FieldError{"proxy", c.Proxy, "has no address: write one like 0.0.0.0:65001"}
	}
	return checkHostPort("proxy", net.JoinHostPort("127.0.0.1", port))
}
