package admin

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestDashboard: a browser gets a page at /, whose files are there, of the right
// types and from nowhere else; others get the list.
func TestDashboard(t *testing.T) {
	url := serve(t, full())
	browser := map[string]string{"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
	resp, page := ask(t, http.MethodGet, url+"/", browser)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" || resp.Header.Get("Vary") != "Accept" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	if policy := resp.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'self'") {
		t.Errorf("policy %q", policy)
	}
	links := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(page, -1)
	types := map[string]string{"/dashboard/style.css": "text/css", "/dashboard/script.js": "text/javascript"}
	found := 0
	for _, l := range links {
		want, file := types[l[1]]
		if !file {
			if !strings.HasPrefix(l[1], "/") && l[1] != "data:," {
				t.Errorf("the page leads to %s", l[1])
			}
			continue
		}
		found++
		if resp, body := ask(t, http.MethodGet, url+l[1], nil); resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), want) || body == "" {
			t.Errorf("%s: %s %q", l[1], resp.Status, resp.Header.Get("Content-Type"))
		}
	}
	if found != len(types) {
		t.Errorf("the page loads %d files, want %d", found, len(types))
	}
	// Every element that the script fills is in the page.
	_, script := ask(t, http.MethodGet, url+"/dashboard/script.js", nil)
	for _, id := range regexp.MustCompile(`byId\('([a-z-]+)'\)|table\('([a-z]+)'`).FindAllStringSubmatch(script, -1) {
		if name := id[1] + id[2]; !strings.Contains(page, `id="`+name+`"`) {
			t.Errorf("the page has no element %s", name)
		}
	}
	for _, path := range []string{"/dashboard/", "/dashboard/index.html", "/dashboard/none.js", "/dashboard/%2e%2e/admin.go"} {
		if resp, _ := ask(t, http.MethodGet, url+path, browser); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if resp, _ := ask(t, http.MethodGet, url+"/", map[string]string{"Accept": "*/*"}); !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("without text/html: %q", resp.Header.Get("Content-Type"))
	}
}

// TestDashboardWritesText: what comes from peers is never parsed as HTML.
func TestDashboardWritesText(t *testing.T) {
	script, err := dashboardPage.ReadFile("dashboard/script.js")
	if err != nil {
		t.Fatal(err)
	}
	if sink := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(`).Find(script); sink != nil {
		t.Errorf("the script uses %s", sink)
	}
}
