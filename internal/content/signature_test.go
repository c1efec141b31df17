package content

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

// TestSplitSignature: what signs a URL is taken out of it, and nothing else is.
func TestSplitSignature(t *testing.T) {
	for _, c := range []struct{ name, query, rest string }{
		{"S3 v4", "versionId=7&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F1&X-Amz-Date=1&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=ab&x-id=GetObject", "versionId=7&x-id=GetObject"},
		{"S3 v4 of a session", "X-Amz-Signature=ab&X-Amz-Security-Token=t", ""},
		{"S3 v4 in another case", "x-amz-signature=ab&X-AMZ-DATE=1", ""},
		{"S3 v4 encoded", "X%2DAmz-Signature=ab&X%2dAmz%2dDate=1&a=b", "a=b"},
		{"S3 v2", "AWSAccessKeyId=A&Expires=1&Signature=ab&response-content-type=x", "response-content-type=x"},
		{"GCS v4", "X-Goog-Algorithm=A&X-Goog-Credential=c&X-Goog-Date=d&X-Goog-Expires=1&X-Goog-SignedHeaders=host&X-Goog-Signature=ab&generation=5", "generation=5"},
		{"GCS v2", "GoogleAccessId=a&Expires=1&Signature=ab", ""},
		{"CloudFront", "q=1&Expires=1&Signature=ab&Key-Pair-Id=k", "q=1"},
		{"CloudFront, own policy", "Policy=p&Signature=ab&Key-Pair-Id=k&q", "q"},
		{"Azure", "snapshot=s&sv=2024&ss=b&srt=o&sp=r&se=1&st=0&spr=https&sig=ab", "snapshot=s"},
		{"Azure, stored policy", "sv=2024&si=policy&sr=b&sig=ab", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := strings.TrimSuffix("https://h/p?"+c.rest, "?")
			if bare, signed := SplitSignature("https://h/p?" + c.query); bare != want || !signed {
				t.Errorf("%s, %v, want %s", bare, signed, want)
			}
			task, err := NewTask("https://h/p?"+c.query, Filter{})
			if err != nil || task.URL != want || task.Secret != "" {
				t.Errorf("task of %s with secret %q, %v", task.URL, task.Secret, err)
			}
		})
	}
}

// TestNoSignature: a URL without a whole signature is left as it is; parameters
// that seem to be secrets are noticed.
func TestNoSignature(t *testing.T) {
	for query, secret := range map[string]string{
		"":                                   "",
		"a=b&v=1&expires=1":                  "",
		"sv=1&se=2":                          "",
		"X-Amz-Date=1&X-Amz-Credential=c":    "x-amz-date",
		"Signature=ab":                       "signature",
		"sig=x&v=1":                          "sig",
		"private_token=glpat":                "private_token",
		"API%5Fkey=1":                        "api_key",
		"X-Amz-Signature=ab&access_token=st": "access_token",
		"#?a&x-goog-signature":               "",
	} {
		raw := "https://h/p"
		if query != "" && query[0] != '#' {
			raw += "?"
		}
		raw += query
		bare, signed := SplitSignature(raw)
		if want := strings.Contains(query, "Amz-Signature"); signed != want || !signed && bare != raw {
			t.Errorf("%s: %s, %v", raw, bare, signed)
		}
		if task, err := NewTask(raw, Filter{}); err != nil || task.Secret != secret {
			t.Errorf("%s: secret %q, want %q; %v", raw, task.Secret, secret, err)
		}
	}
}

// TestURLErrorsTellNoSecret: an unusable URL is not shown by its refusal.
func TestURLErrorsTellNoSecret(t *testing.T) {
	for _, raw := range []string{"https://h:x/p?token=hunter2", "ftp://h/?token=hunter2", "https://u:hunter2@h/", "https://h/%zz?hunter2", "https://h/\x7f?hunter2"} {
		if _, err := NewTask(raw, Filter{}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

// FuzzSplitSignature: what is left of a URL is not signed, and is a part of it;
// it names the same task, which tells nothing of the signature.
func FuzzSplitSignature(f *testing.F) {
	for _, raw := range []string{
		"https://h/p?versionId=7&X-Amz-Date=1&X%2damz-Signature=ab#f", "http://h/?Signature=hunter2&Expires=1&OSSAccessKeyId=k&sig=1&sv=2&se=3",
		"https://h/?sig=1&sig=2&%73v=&SI", "http://h/?x-amz-signature#?&x-goog-signature", "http://h/?&&x-goog-signature=1&;", "https://h:x/?x-amz-signature=hunter2",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		bare, signed := SplitSignature(raw)
		if signed == (bare == raw) {
			t.Fatalf("%q is signed: %v, without its signature %q", raw, signed, bare)
		}
		if again, still := SplitSignature(bare); still || again != bare {
			t.Fatalf("%q without its signature is %q, of that %q", raw, bare, again)
		}
		task, err := NewTask(raw, Filter{})
		if err != nil {
			return
		}
		if _, signed := SplitSignature(task.URL); signed {
			t.Fatalf("%q names the task %q", raw, task.URL)
		}
		if of, err := NewTask(bare, Filter{}); err != nil || of != task {
			t.Fatalf("%q names %+v, without its signature %+v, %v", raw, task, of, err)
		}
		u, err := url.Parse(task.URL)
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range strings.Split(u.RawQuery, "&") {
			if name := parameter(pair); slices.Contains([]string{"x-amz-signature", "x-goog-signature"}, name) {
				t.Fatalf("%q names %q", raw, task.URL)
			}
		}
	})
}
