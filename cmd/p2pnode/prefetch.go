package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/p2pnode/p2pnode/node/admin"
	"github.com/spf13/cobra"
)

func (a *app) prefetchCmd() *cobra.Command {
	var (
		byteRange, dataDir string
		headers            []string
		seeds, pin, raw    bool
	)
	command := &cobra.Command{
		Use:   "prefetch URL…",
		Short: "Have a running daemon bring files in before they are asked for",
		Long: `Have a running daemon bring files, or a part of each, into its store, behind its
readers, or have the elected seeds of each file bring in what they own of it.
The URL - stands for URLs on stdin, one a line. What is there already is not
fetched again, so a prefetch that failed can be repeated. What is pinned is not
evicted before p2pnode unpin, or before the file changes at its origin.

Of a private file the origin wants to see credentials: a signature in the URL,
or the fields of --header, which go to the origins of all the URLs. It is served
to those alone whom the origin lets in, as after any other reading.`,
		Args: urlArgs,
	}
	f := command.Flags()
	f.StringVar(&byteRange, "range", "", "bytes `A-B` alone, both included; A- and -N too")
	f.StringArrayVar(&headers, "header", nil, "`field` for a private file's origin, as \"Authorization: …\" or \"Cookie: …\", or @FILE that holds it; repeatable")
	f.BoolVar(&seeds, "seeds", false, "on the elected seeds of each file, not on this daemon")
	f.BoolVar(&pin, "pin", false, "keep them in this daemon's store until p2pnode unpin")
	f.BoolVar(&raw, "json", false, "print the daemon's events, a line of JSON each")
	f.StringVar(&dataDir, "data-dir", a.dataDir("p2pnode"), "data `directory` of the daemon")
	markLocal(command, "range", "header", "seeds", "pin", "json")
	command.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := a.fill(cmd); err != nil {
			return err
		}
		if _, err := parseRange(byteRange); err != nil {
			return err
		}
		if pin && seeds {
			return usagef("--pin and --seeds: a daemon pins what it holds itself; run prefetch --pin for each that shall")
		}
		header, err := readHeader(headers)
		if err != nil {
			return err
		}
		urls, err := readURLs(args, cmd.InOrStdin())
		if err != nil {
			return err
		}
		daemon, err := findDaemon(cmd.Context(), dataDir)
		if err != nil {
			return err
		}
		order := map[string]any{"range": byteRange, "where": "here", "pin": pin}
		if len(header) > 0 {
			order["header"] = header
		}
		if seeds {
			order["where"] = "seeds"
		}
		t := a.newTransfer("prefetch", len(urls), raw)
		return t.end(cmd.Context(), t.prefetch(cmd.Context(), daemon, urls, order))
	}
	return command
}

// readHeader reads fields of credentials. No error shows a value: it is a secret.
func readHeader(fields []string) (map[string]string, error) {
	header := make(map[string]string, len(fields))
	for _, field := range fields {
		if path, ok := strings.CutPrefix(field, "@"); ok {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, usagef("header: %w", err)
			}
			field = string(text)
		}
		name, value, ok := strings.Cut(strings.TrimSpace(field), ":")
		name, value = http.CanonicalHeaderKey(name), strings.TrimSpace(value)
		if !ok || name != "Authorization" && name != "Cookie" || header[name] != "" || strings.ContainsFunc(value, unicode.IsControl) {
			return nil, usagef("--header wants \"Authorization: …\" or \"Cookie: …\", each once, or @FILE that holds one of them")
		}
		header[name] = value
	}
	return header, nil
}

// urlArgs wants URLs as arguments.
func urlArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("%s wants URLs, or - for stdin: see %s --help", cmd.Name(), cmd.CommandPath())
	}
	return nil
}

// prefetch sends the URLs in as many requests as they need.
func (t *transfer) prefetch(ctx context.Context, d running, urls []string, order map[string]any) error {
	for part := range slices.Chunk(urls, admin.MaxURLs) {
		order["urls"] = part
		body, err := json.Marshal(order)
		if err != nil {
			return err
		}
		if err := t.post(ctx, d, "/v1/prefetch", "application/json", bytes.NewReader(body), int64(len(body))); err != nil {
			return err
		}
	}
	return nil
}

// readURLs checks the URLs of the arguments, and of stdin in the place of "-".
func readURLs(args []string, stdin io.Reader) ([]string, error) {
	var urls []string
	add := func(raw string) error {
		clean, _, err := parseURL(raw)
		if err == nil {
			urls = append(urls, clean)
		}
		return err
	}
	for _, arg := range args {
		if arg != "-" {
			if err := add(arg); err != nil {
				return nil, err
			}
			continue
		}
		lines := bufio.NewScanner(stdin)
		for lines.Scan() {
			line := strings.TrimSpace(lines.Text())
			if line == "" {
				continue
			}
			if err := add(line); err != nil {
				return nil, err
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read URLs from stdin: %w", err)
		}
	}
	if len(urls) == 0 {
		return nil, usagef("no URLs on stdin: write one a line")
	}
	return urls, nil
}
