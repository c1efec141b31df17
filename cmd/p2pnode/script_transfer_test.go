package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

func cmdCloseOrigin(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "closeorigin")
	originOf(ts).Close()
}

func cmdHeld(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "held PATH BYTES")
	path, err := exec.LookPath("p2pnode")
	ts.Check(err)
	cmd := exec.Command(path, "seeds", "--json", "--data-dir", ts.MkAbs(ts.Getenv("P2PNODE_DATA_DIR")))
	text, err := cmd.Output()
	ts.Check(err)
	var tasks []struct {
		URL  string
		Held int64
	}
	ts.Check(json.Unmarshal(text, &tasks))
	var held int64
	for _, task := range tasks {
		if task.URL == ts.Getenv("ORIGIN")+"/"+args[0] {
			held += task.Held
		}
	}
	if strconv.FormatInt(held, 10) != args[1] {
		ts.Fatalf("%d bytes of %s are held, want %s", held, args[0], args[1])
	}
}

func cmdEmpty(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "empty DIR")
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(entries) > 0 {
		ts.Fatalf("%s holds %s and perhaps more", args[0], entries[0].Name())
	}
}

func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 3, "flip FILE OFFSET TO")
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	data := bytes.Clone([]byte(ts.ReadFile(args[0])))
	data[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), data, 0o600))
}

func cmdDigest(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "digest FILE")
	ts.Setenv("DIGEST", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(ts.ReadFile(args[0])))))
}
