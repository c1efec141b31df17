package main

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/p2pnode/p2pnode/node"
)

// FuzzArguments: what the command line is read as can be read again, and leads
// nowhere else.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{
		"0-9", "7-", "-3", "https://o.example/dir/file.bin?a=1&b=%2F#x", "http://o/..%2f..%2fetc", "http://o/%2e%2e", "http://o/a%5c..%5cb", "http://o/%1b[2J", "https://o/a b\t\x00|é",
		"http://o/.", "http://o/a/", "http://user:word@o/f", "docker.io", "[::1]:5000=https://r.example", "../x=http://y", "_default", "127.0.0.1:65001", "https://proxy:443/", "http://u:p@h:1?x#y", "h:1/x", "h:bad", "host/f", "[::1", "%zz",
		"many", "5", "007", "2026-11-23T12:00:00Z", "Authorization: Bearer x", "cookie:\n a=b\nHost: x", "Host: ", "sha256:" + strings.Repeat("Ab", 32),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := parseRange(s); err == nil {
			if again, err := parseRange(r.String()); err != nil || again != r {
				t.Errorf("range %q is %+v, then %+v, %v", s, r, again, err)
			}
		}
		var n, m uses
		if n.Set(s) == nil {
			if err := m.Set(n.String()); err != nil || m != n {
				t.Errorf("uses %q are %s, then %s, %v", s, &n, &m, err)
			}
		}
		if d, err := parseDigest(s); err == nil {
			if again, err := parseDigest(d); err != nil || again != d {
				t.Errorf("digest %q is %q, then %q, %v", s, d, again, err)
			}
		}
		if u, err := proxyURL(s); err == nil {
			if again, err := proxyURL(u); err != nil || again != u {
				t.Errorf("proxy %q is %q, then %q, %v", s, u, again, err)
			}
		}
		if name, _, err := parseRegistry(s); err == nil && (!filepath.IsLocal(name) || filepath.Base(name) != name) {
			t.Errorf("the mirror of %q is written to %q", s, name)
		}
		checkURLs(t, s)
		checkOutput(t, s)
		checkSecrets(t, s)
	})
}

// checkURLs: URLs are sent as they are, so that they need be good.
func checkURLs(t *testing.T, s string) {
	t.Helper()
	urls, err := readURLs([]string{"-"}, strings.NewReader(s))
	if err != nil {
		return
	}
	for _, clean := range urls {
		again, u, err := parseURL(clean)
		if err != nil || again != clean || u.User != nil || u.Fragment != "" || u.Host == "" || strings.ContainsFunc(clean, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			t.Errorf("URL %q is %q, then %q, %v", s, clean, again, err)
		}
	}
}

// checkOutput: without --output a get writes a file of this directory.
func checkOutput(t *testing.T, s string) {
	t.Helper()
	d, err := newHarness().newDownload(s, getOptions{})
	if err != nil {
		return
	}
	if name := d.partName(); d.stdout != nil || !filepath.IsLocal(d.out) || filepath.Base(name) != name || d.out == "." || strings.ContainsFunc(d.out, unicode.IsControl) {
		t.Errorf("URL %q is written to %q", s, d.out)
	}
}

// checkShown: no error about an argument shows a password in it, whatever the
// argument was to be.
func checkShown(t *testing.T, arg, secret string) {
	t.Helper()
	_, _, errURL := parseURL(arg)
	_, errOut := newHarness().newDownload(arg, getOptions{})
	_, errProxy := proxyURL(arg)
	_, _, errName := parseRegistry(arg)
	_, _, errServer := parseRegistry("r.example=" + arg)
	errs := []error{errURL, errOut, errProxy, errName, errServer}
	for _, c := range []node.Config{
		{Proxy: arg}, {Admin: arg}, {Registries: []string{"r.example=" + arg}}, {Registries: []string{arg}}, {OriginAllow: []string{arg}}, {Intercept: []string{arg}},
	} {
		c.DataDir = "x"
		errs = append(errs, c.Validate())
	}
	for i, err := range errs {
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%d: %q is shown: %v", i, arg, err)
		}
	}
}

// checkSecrets: credentials stand in no error, and become the two fields alone.
func checkSecrets(t *testing.T, s string) {
	t.Helper()
	const secret = "secret-word"
	if strings.Contains(s, secret) || strings.HasPrefix(s, "@") { // that is a file
		return
	}
	for _, before := range []string{"http://", "ftp://", "://", "", "http:/", "http:", "https:///", "//"} {
		for _, arg := range []string{before + "user:" + secret + "@" + s, before + "user:" + secret + "#x@" + s} {
			checkShown(t, arg, secret)
			if _, _, err := parseURL(arg); err == nil {
				t.Errorf("URL %q is taken", arg)
			}
		}
		checkShown(t, before+s+":"+secret+"@h:bad", secret)
	}
	header, err := readHeader([]string{s + secret})
	if err != nil && strings.Contains(err.Error(), secret) {
		t.Errorf("header %q: %v", s, err)
	}
	for name, value := range header {
		if name != "Authorization" && name != "Cookie" || strings.ContainsFunc(value, unicode.IsControl) {
			t.Errorf("header %q is %q: %q", s, name, value)
		}
	}
}
