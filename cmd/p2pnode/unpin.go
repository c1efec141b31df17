package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/p2pnode/p2pnode/node/admin"
	"github.com/spf13/cobra"
)

func (a *app) unpinCmd() *cobra.Command {
	var (
		byteRange, dataDir string
		raw                bool
	)
	command := &cobra.Command{
		Use:   "unpin URL…",
		Short: "Let a running daemon evict what prefetch --pin or import --pin has pinned",
		Long: `Let a running daemon evict files, or a part of each, that prefetch --pin or
import --pin has pinned. They stay until their room is needed. The URL - stands
for URLs on stdin, one a line. p2pnode seeds shows what is pinned.`,
		Args: urlArgs,
	}
	f := command.Flags()
	f.StringVar(&byteRange, "range", "", "bytes `A-B` alone, both included; A- and -N too")
	f.BoolVar(&raw, "json", false, "print the results, a line of JSON each")
	f.StringVar(&dataDir, "data-dir", a.dataDir("p2pnode"), "data `directory` of the daemon")
	markLocal(command, "range", "json")
	command.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := a.fill(cmd); err != nil {
			return err
		}
		if _, err := parseRange(byteRange); err != nil {
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
		var failed []error
		for part := range slices.Chunk(urls, admin.MaxURLs) {
			results, err := postUnpin(cmd.Context(), daemon, part, byteRange)
			if err != nil {
				return fmt.Errorf("unpin: %w", err)
			}
			for _, r := range results {
				if err := a.unpinned(r, raw); err != nil {
					failed = append(failed, err)
				}
			}
		}
		return failure(a.stderr, "unpin", len(urls), failed)
	}
	return command
}

// postUnpin asks a daemon, and returns a result for each URL.
func postUnpin(ctx context.Context, d running, urls []string, byteRange string) ([]admin.Unpinned, error) {
	body, err := json.Marshal(map[string]any{"urls": urls, "range": byteRange})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.page("/v1/unpin"), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", d.Admin, err)
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: d.transport()}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, refusal(res)
	}
	return readUnpinned(io.LimitReader(res.Body, maxAnswer), len(urls))
}

// readUnpinned reads an answer, which has n results.
func readUnpinned(body io.Reader, n int) ([]admin.Unpinned, error) {
	var answer struct{ Results []admin.Unpinned }
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	if len(answer.Results) != n {
		return nil, fmt.Errorf("the daemon sent %d results for %d URLs", len(answer.Results), n)
	}
	return answer.Results, nil
}

// unpinned prints one result, and returns the error that it is.
func (a *app) unpinned(r admin.Unpinned, raw bool) error {
	url := clean(r.URL)
	if raw {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := a.printJSON(line); err != nil {
			return err
		}
	}
	if r.Error != "" {
		return fmt.Errorf("unpin %s: %s", url, oneLine(r.Error))
	}
	if !raw {
		_, err := fmt.Fprintf(a.stdout, "%s: %d bytes are pinned no more\n", url, r.Bytes)
		return err
	}
	return nil
}

// failure is the error of a command on n URLs; where there are several it
// writes each of the failed ones down.
func failure(w io.Writer, verb string, n int, failed []error) error {
	if n == 1 || len(failed) == 0 {
		return errors.Join(failed...)
	}
	for _, err := range failed {
		fmt.Fprintln(w, "p2pnode: "+err.Error())
	}
	return fmt.Errorf("%s: %d of %d URLs failed: see above", verb, len(failed), n)
}
