package admin

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"
)

// dashboardDir is where the dashboard's files are served.
const dashboardDir = "/dashboard/"

// dashboardPage has the page of / and, beside it, its script and style. It shows
// what the other endpoints say, which it asks every two seconds, writes text
// alone, since URLs come from peers, and loads nothing from elsewhere.
//
//go:embed dashboard
var dashboardPage embed.FS

// wantsHTML reports whether a request to / is a browser's: its Accept names
// text/html (RFC 9110 section 12.5.1), which no other client's does unasked.
func wantsHTML(r *http.Request) bool {
	return strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "text/html")
}

// dashboard answers with the page.
func dashboard(w http.ResponseWriter) {
	page, err := dashboardPage.ReadFile("dashboard/index.html")
	if err != nil {
		panic("admin: " + err.Error()) // it is in the program
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page) // an error means that the client has gone
}

// dashboardFiles serves the page's script and style, and lists no directory.
func dashboardFiles() http.Handler {
	files := http.FileServerFS(dashboardPage)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		if !fs.ValidPath(name) || strings.HasSuffix(name, ".html") {
			writeError(w, http.StatusNotFound, "no such page: "+r.URL.Path+"; / is the dashboard")
			return
		}
		files.ServeHTTP(w, r)
	})
}
