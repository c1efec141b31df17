package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/spf13/cobra"
)

// importOptions are the flags of import.
type importOptions struct {
	url, digest, etag, lastModified string
	dataDir                         string
	pin, raw                        bool
}

func (a *app) importCmd() *cobra.Command {
	var o importOptions
	command := &cobra.Command{
		Use:   "import FILE --url URL",
		Short: "Give a running daemon the content of a URL from a file",
		Long: `Give a running daemon the content of a URL from a file, as if it had fetched it.
The daemon asks the origin which version of the file there is, and refuses
another size; where the origin is out of reach, name the version by the ETag or
else the Last-Modified that the origin sends. With a digest, in the URL or by
--digest, nothing is stored before all was checked; without one the file is
taken for what it is said to be. What is there already is skipped. What is pinned
is not evicted before p2pnode unpin, or before the file changes at its origin.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("import wants one FILE, not %d: see %s --help", len(args), cmd.CommandPath())
			}
			return nil
		},
	}
	f := command.Flags()
	f.StringVar(&o.url, "url", "", "the `URL` whose content it is")
	f.StringVar(&o.digest, "digest", "", "what the file must hash to, as `sha256:HEX` or sha512:HEX")
	f.StringVar(&o.etag, "etag", "", "the `ETag` that the origin sends, where it is out of reach")
	f.StringVar(&o.lastModified, "last-modified", "", "the `date` that the origin sends, where it has no ETag")
	f.BoolVar(&o.pin, "pin", false, "keep it in the daemon's store until p2pnode unpin")
	f.BoolVar(&o.raw, "json", false, "print the daemon's events, a line of JSON each")
	f.StringVar(&o.dataDir, "data-dir", a.dataDir("p2pnode"), "data `directory` of the daemon")
	markLocal(command, "url", "digest", "etag", "last-modified", "pin", "json")
	command.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := a.fill(cmd); err != nil {
			return err
		}
		return a.importFile(cmd.Context(), args[0], o)
	}
	return command
}

func (a *app) importFile(ctx context.Context, name string, o importOptions) error {
	if o.url == "" {
		return usagef("import wants --url: say whose content %s is", name)
	}
	clean, _, err := parseURL(o.url)
	if err != nil {
		return err
	}
	if _, err := parseDigest(o.digest); err != nil {
		return err
	}
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("import %s: it is no regular file, whose size is known: name one", name)
	}
	daemon, err := findDaemon(ctx, o.dataDir)
	if err != nil {
		return err
	}
	query := url.Values{"url": {clean}}
	for key, value := range map[string]string{"digest": o.digest, "etag": o.etag, "last_modified": o.lastModified} {
		if value != "" {
			query.Set(key, value)
		}
	}
	if o.pin {
		query.Set("pin", "true")
	}
	t := a.newTransfer("import", 1, o.raw)
	err = t.post(ctx, daemon, "/v1/import?"+query.Encode(), "application/octet-stream", io.LimitReader(file, info.Size()), info.Size())
	return t.end(ctx, err)
}
