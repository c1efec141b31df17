package content

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestNewTaskCanonicalURL(t *testing.T) {
	signed := Filter{Version: 3, Query: []string{"X-Amz-Signature", "sig"}}
	for raw, want := range map[string]string{
		"http://example.com":                  "http://example.com/",
		"HTTP://EXAMPLE.com:80/A/b":           "http://example.com/A/b",
		"https://example.com:443/":            "https://example.com/",
		"https://example.com:80/":             "https://example.com:80/",
		"http://example.com:443/":             "http://example.com:443/",
		"http://example.com:080/":             "http://example.com/",
		"http://example.com:/":                "http://example.com/",
		"http://example.com:8080/x":           "http://example.com:8080/x",
		"http://example.com/a#frag":           "http://example.com/a",
		"http://example.com#frag":             "http://example.com/",
		"http://example.com/a?":               "http://example.com/a",
		"http://example.com?q=1":              "http://example.com/?q=1",
		"http://example.com/a?b=2&a=1&&b=2":   "http://example.com/a?b=2&a=1&&b=2",
		"http://example.com/?a b":             "http://example.com/?a%20b",
		"http://example.com/%7euser/%2f%c3":   "http://example.com/%7Euser/%2F%C3",
		"http://example.com/a?q=%2f%zz%4":     "http://example.com/a?q=%2F%zz%4",
		"http://example.com/a b":              "http://example.com/a%20b",
		"http://example.com/ü":                "http://example.com/%C3%BC",
		"http://example.com/a/../b/./c//d":    "http://example.com/a/../b/./c//d",
		"http://example.com/a+b;c=d@e:f":      "http://example.com/a+b;c=d@e:f",
		"http://example.com/A?a=B":            "http://example.com/A?a=B",
		"http://example.com./":                "http://example.com./",
		"http://BÜCHER.example/":              "http://xn--bcher-kva.example/",
		"http://bücher.example/":              "http://xn--bcher-kva.example/",
		"http://xn--bcher-kva.example/":       "http://xn--bcher-kva.example/",
		"http://faß.example/":                 "http://xn--fa-hia.example/",
		"http://under_score.example/":         "http://under_score.example/",
		"http://127.0.0.1/":                   "http://127.0.0.1/",
		"http://１２７.0.0.1/":                   "http://127.0.0.1/",
		"http://[::1]/":                       "http://[::1]/",
		"http://[2001:DB8:0:0:0:0:0:1]:8080/": "http://[2001:db8::1]:8080/",
		"http://1.2.3.4.example/":             "http://1.2.3.4.example/",
		"http://0b1/":                         "http://0b1/",

		"https://b.example/k?X-Amz-Signature=1&v=2&sig=3":  "https://b.example/k?v=2",
		"https://b.example/k?sig=1":                        "https://b.example/k",
		"https://b.example/k?sig":                          "https://b.example/k",
		"https://b.example/k?SIG=1&signature=2&%73ig=3":    "https://b.example/k?SIG=1&signature=2&%73ig=3",
		"https://b.example/k?a=sig&b=X-Amz-Signature":      "https://b.example/k?a=sig&b=X-Amz-Signature",
		"https://b.example/k?v=sig=1":                      "https://b.example/k?v=sig=1",
		"https://b.example/k?v=http://x.example/?sig=1":    "https://b.example/k?v=http://x.example/?sig=1",
		"https://b.example/k?v=1&sig=a%2fb&w=%2f#x?sig=no": "https://b.example/k?v=1&w=%2F",
	} {
		t.Run(raw, func(t *testing.T) {
			got, err := NewTask(raw, signed)
			if err != nil {
				t.Fatal(err)
			}
			if got.URL != want {
				t.Errorf("canonical URL %s, want %s", got.URL, want)
			}
			again, err := NewTask(got.URL, signed)
			if err != nil || again != got {
				t.Errorf("the canonical URL is named %+v, %v; want %+v", again, err, got)
			}
		})
	}
}

func TestNewTaskRefuses(t *testing.T) {
	for _, raw := range []string{
		"", "/path", "example.com/x", "//example.com/x", "ftp://example.com/", "file:///etc/passwd", "http:foo", "http://",
		"http:///x", "http://:80/", "http://user@example.com/", "http://user:pw@example.com/", "http://@example.com/",
		"http://127.1/", "http://2130706433/", "http://0x7f.0.0.1/", "http://0x7f000001/", "http://0x/", "http://017700000001/",
		"http://1.2.3/", "http://1.2.3.4.5/", "http://1.2.3.09/", "http://1.2.3.256/", "http://01.2.3.4/", "http://127.0.0.1./",
		"http://99999999999999999999999/", "http://a.1/", "http://１２７.1/",
		"http://[fe80::1%25eth0]/", "http://[::1/", "http://[1.2.3.4]/", "http://::1/",
		"http://example.com:65536/", "http://example.com:-1/", "http://example.com:http/",
		"http://exa mple.com/", "http://a%41.example/", "http://a|b.example/", "http://a^b.example/", "http://%zz/", "http://xn--a/",
		"http://example.com/\x00", "http://\xbd/", "http://example.com/%zz",
	} {
		if task, err := NewTask(raw, Filter{}); !errors.Is(err, ErrURL) {
			t.Errorf("%q: got %+v, %v; want ErrURL", raw, task, err)
		}
	}
}

func TestNewTaskDoesNotShowPasswords(t *testing.T) {
	_, err := NewTask("http://user:hunter2@example.com/", Filter{})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestNewTaskDigest(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	sha512 := "sha512:" + hex + hex
	id := func(raw string, f Filter) Task {
		t.Helper()
		task, err := NewTask(raw, f)
		if err != nil {
			t.Fatal(err)
		}
		return task
	}
	one := id("https://registry.example/v2/library/debian/blobs/sha256:"+hex, Filter{})
	other := id("http://mirror.example:5000/v2/a/b/c/blobs/sha256:"+hex, Filter{})
	if one.Digest != "sha256:"+hex || one.ID != other.ID || one.URL == other.URL {
		t.Errorf("one layer in two repositories: %+v and %+v", one, other)
	}
	if id("https://registry.example/v2/x/blobs/sha256:"+hex+"?sig=1", Filter{Query: []string{"sig"}}).Digest == "" {
		t.Error("a filtered parameter hides the digest")
	}
	manifest := id("https://registry.example/v2/library/debian/manifests/sha256:"+hex, Filter{})
	if manifest.Digest != one.Digest || manifest.ID == one.ID {
		t.Errorf("a manifest %+v, and a blob of the same digest %+v", manifest, one)
	}
	if again := id("http://mirror.example:5000/v2/a/manifests/sha256:"+hex, Filter{}); again.ID != manifest.ID {
		t.Errorf("one manifest in two repositories: %+v and %+v", manifest, again)
	}
	if long := id("https://r.example/v2/x/blobs/"+sha512, Filter{}); long.Digest != sha512 || long.ID != id("http://m.example/v2/y/blobs/"+sha512, Filter{}).ID {
		t.Errorf("one layer by its sha512 in two repositories: %+v", long)
	}
	for _, raw := range []string{
		"https://r.example/v2/x/blobs/sha256:" + hex[1:],
		"https://r.example/v2/x/blobs/sha256:" + hex + "0",
		"https://r.example/v2/x/blobs/sha256:" + strings.ToUpper(hex),
		"https://r.example/v2/x/blobs/sha512:" + hex,
		"https://r.example/v2/x/blobs/sha256:" + hex + "/",
		"https://r.example/v2/x/blobs/sha256:" + hex + "?a=b",
		"https://r.example/v2/blobs/sha256:" + hex,
		"https://r.example/v1/x/blobs/sha256:" + hex,
		"https://r.example/x/v2/x/blobs/sha256:" + hex,
		"https://r.example/v2/x/manifests/latest",
		"https://r.example/v2/x/referrers/sha256:" + hex,
	} {
		if task := id(raw, Filter{}); task.Digest != "" || task.ID == one.ID {
			t.Errorf("%s is taken for a blob", raw)
		}
	}
}

func TestTaskIDDependsOn(t *testing.T) {
	const raw = "http://example.com/file"
	base, _ := NewTask(raw, Filter{})
	filtered, _ := NewTask(raw, Filter{Version: 1})
	https, _ := NewTask("https://example.com/file", Filter{})
	upper, _ := NewTask("http://example.com/File", Filter{})
	seen := map[TaskID]bool{base.ID: true, filtered.ID: true, https.ID: true, upper.ID: true}
	if len(seen) != 4 {
		t.Errorf("filter version, scheme and path must make different tasks: %v", seen)
	}
}

func TestTaskIDForms(t *testing.T) {
	task, _ := NewTask("http://example.com/file", Filter{})
	if got, err := ParseTaskID(task.ID.String()); err != nil || got != task.ID {
		t.Errorf("ParseTaskID: %s, %v", got, err)
	}
	if got, err := TaskIDFromBytes(task.ID[:]); err != nil || got != task.ID {
		t.Errorf("TaskIDFromBytes: %s, %v", got, err)
	}
	for _, s := range []string{"", "0", strings.Repeat("0", 63), strings.Repeat("0", 66), strings.Repeat("g", 64)} {
		if _, err := ParseTaskID(s); err == nil {
			t.Errorf("%q was taken for a task ID", s)
		}
	}
	for _, n := range []int{0, 31, 33} {
		if _, err := TaskIDFromBytes(make([]byte, n)); err == nil {
			t.Errorf("%d bytes were taken for a task ID", n)
		}
	}
}

// FuzzNewTask checks that a canonical URL is a URL, is its own canonical form
// and names the same task.
func FuzzNewTask(f *testing.F) {
	for _, raw := range []string{
		"http://Example.com:80/a%2fb?x=1&sig=2#f", "https://[2001:DB8::1]:443", "http://bücher.example/ü?ü",
		"http://127.1/", "http://u:p@h/", "http://h/v2/a/blobs/sha256:" + strings.Repeat("a", 64), "http://a/b|c%2fd", "http://a.09./",
		"http://" + strings.Repeat("a", 3000) + "ü/", "http://" + strings.Repeat("a", 250) + "ü/",
	} {
		f.Add(raw, "sig")
	}
	f.Fuzz(func(t *testing.T, raw, drop string) {
		filter := Filter{Version: 1, Query: []string{drop}}
		task, err := NewTask(raw, filter)
		if err != nil {
			if !errors.Is(err, ErrURL) {
				t.Fatalf("%q: %v is no ErrURL", raw, err)
			}
			return
		}
		again, err := NewTask(task.URL, filter)
		if err != nil || again != task {
			t.Fatalf("%q is named %+v, which is named %+v, %v", raw, task, again, err)
		}
		u, err := url.Parse(task.URL)
		if err != nil || u.User != nil || u.Fragment != "" || u.Path == "" || u.Scheme != strings.ToLower(u.Scheme) || u.Host != strings.ToLower(u.Host) {
			t.Fatalf("%q: canonical URL %q: %+v, %v", raw, task.URL, u, err)
		}
		if strings.ContainsAny(task.URL, " \t\r\n\x00") {
			t.Fatalf("%q: canonical URL %q would break a request line", raw, task.URL)
		}
	})
}
