package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/p2pnode/p2pnode/node"
	"github.com/spf13/cobra"
)

func (a *app) idCmd() *cobra.Command {
	var (
		dataDir  string
		embedded bool
	)
	command := &cobra.Command{
		Use:   "id",
		Short: "Print the peer ID of a data directory, making its identity if there is none",
		Args:  noArgs,
	}
	command.Flags().StringVar(&dataDir, "data-dir", a.dataDir("p2pnode"), "`directory` of the identity")
	toggleVar(command.Flags(), &embedded, "embedded", false, "that of the supernode which a daemon without --supernode runs itself")
	markLocal(command, "embedded")
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := a.fill(cmd)
		if err == nil {
			err = set.needDataDir(dataDir)
		}
		if err != nil {
			return err
		}
		of := node.PeerID
		if embedded {
			of = node.EmbeddedID
		}
		id, err := of(dataDir)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, id)
		return err
	}
	return command
}

func (a *app) statusCmd() *cobra.Command {
	return a.showCmd("status", "Show what a running daemon is and does", "/v1/status", printFields)
}

func (a *app) seedsCmd() *cobra.Command {
	return a.showCmd("seeds", "Show the files that a running daemon holds, and their seeds", "/v1/tasks",
		rows("no tasks yet", "url", "task", "size", "held", "pinned", "generation", "role", "seeds"))
}

func (a *app) peersCmd() *cobra.Command {
	return a.showCmd("peers", "Show the peers of a running daemon, and how it is connected to them", "/v1/peers",
		rows("no peers yet", "peer", "role", "site", "how", "transport", "addr", "relay", "breaker", "first_byte_ms"))
}

// showCmd makes a command that prints one page of a running daemon's admin
// API: as it came with --json, else as a table.
func (a *app) showCmd(name, short, page string, table func(io.Writer, any) error) *cobra.Command {
	var (
		dataDir string
		raw     bool
	)
	command := &cobra.Command{Use: name, Short: short, Args: noArgs}
	command.Flags().StringVar(&dataDir, "data-dir", a.dataDir("p2pnode"), "data `directory` of the daemon")
	toggleVar(command.Flags(), &raw, "json", false, "print the daemon's JSON")
	markLocal(command, "json")
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := a.fill(cmd)
		if err == nil {
			err = set.needDataDir(dataDir)
		}
		if err != nil {
			return err
		}
		daemon, err := findDaemon(cmd.Context(), dataDir)
		if err != nil {
			return err
		}
		body, err := adminGet(cmd.Context(), daemon, page)
		if err != nil {
			return err
		}
		if err := a.show(body, raw, table); err != nil {
			return fmt.Errorf("read %s%s: %w", daemon.Admin, page, err)
		}
		return nil
	}
	return command
}

// show prints a page of the admin API.
func (a *app) show(body []byte, raw bool, table func(io.Writer, any) error) error {
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return err
	}
	if raw {
		return a.printJSON(body)
	}
	return table(a.stdout, value)
}

// printJSON prints text that is JSON, and ends the line. In its strings JSON lets
// stand what would change a terminal, from DEL on, and what is no UTF-8: these are
// escaped, which leaves the value as it is.
func (a *app) printJSON(text []byte) error {
	text = bytes.TrimRight(text, "\n")
	out := make([]byte, 0, len(text)+1)
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == '\r': // it can stand between values alone
			out = append(out, ' ')
		case r == utf8.RuneError, r > ' ' && printable(r) != r:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	_, err := a.stdout.Write(append(out, '\n'))
	return err
}

// markLocal keeps flags of one invocation out of the environment.
func markLocal(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		cmd.Flags().Lookup(name).Annotations = map[string][]string{"local": {}}
	}
}

// printFields prints an object as lines of name and value: an object inside it
// with its name in front, a list of objects with one line each.
func printFields(w io.Writer, value any) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fields(tw, "", value)
	return tw.Flush()
}

func fields(w io.Writer, name string, value any) {
	object, ok := value.(map[string]any)
	if rows := list(value); !ok && len(rows) > 0 {
		for i, row := range rows {
			fmt.Fprintf(w, "%s.%d\t%s\n", name, i, pairs(row))
		}
		return
	}
	if !ok {
		fmt.Fprintf(w, "%s\t%s\n", name, cell(value))
		return
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		fields(w, strings.TrimPrefix(name+"."+clean(key), "."), object[key])
	}
}

// pairs writes an object on one line.
func pairs(object map[string]any) string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(object)) {
		out = append(out, clean(key)+"="+cell(object[key]))
	}
	return strings.Join(out, " ")
}

// rows returns what prints a list of objects as a table of those columns, by
// their names in the admin API, that the daemon gives, and none where there are
// no objects. An object stands for the list in it.
func rows(none string, columns ...string) func(io.Writer, any) error {
	return func(w io.Writer, value any) error {
		objects := list(value)
		if len(objects) == 0 {
			_, err := fmt.Fprintln(w, none)
			return err
		}
		shown := slices.DeleteFunc(slices.Clone(columns), func(c string) bool {
			return !slices.ContainsFunc(objects, func(o map[string]any) bool { return o[c] != nil })
		})
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, strings.ToUpper(strings.Join(shown, "\t")))
		for _, o := range objects {
			cells := make([]string, len(shown))
			for i, c := range shown {
				cells[i] = cell(o[c])
			}
			fmt.Fprintln(tw, strings.Join(cells, "\t"))
		}
		return tw.Flush()
	}
}

// list returns the objects of a list, or of the first list in an object.
func list(value any) []map[string]any {
	if object, ok := value.(map[string]any); ok {
		for _, key := range slices.Sorted(maps.Keys(object)) {
			if _, ok := object[key].([]any); ok {
				return list(object[key])
			}
		}
	}
	items, _ := value.([]any)
	var rows []map[string]any
	for _, item := range items {
		if row, ok := item.(map[string]any); ok {
			rows = append(rows, row)
		}
	}
	return rows
}

// cell writes one value on one line, the items of a list separated by spaces;
// nothing is a hyphen.
func cell(value any) string {
	switch v := value.(type) {
	case nil:
		return "-"
	case float64:
		return fmt.Sprintf("%.15g", v)
	case []any:
		if len(v) == 0 {
			return "-"
		}
		items := make([]string, len(v))
		for i := range v {
			items[i] = cell(v[i])
		}
		return strings.Join(items, " ")
	case map[string]any:
		return pairs(v)
	}
	return clean(fmt.Sprint(value))
}

// clean returns a text of others, such as URLs and addresses of peers, without what
// would change the terminal.
func clean(s string) string { return strings.Map(printable, s) }

// printable replaces a control character.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
		return '?'
	}
	return r
}
