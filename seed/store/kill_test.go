package store_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/seed/store/storetest"
)

// childDir makes the test binary write blocks into a store there, rather than
// run tests.
const childDir = "P2PNODE_STORE_TEST_CHILD"

// childCapacity is the capacity of that store; 0 for the default.
const childCapacity = "P2PNODE_STORE_TEST_CAPACITY"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		capacity, err := strconv.ParseInt(os.Getenv(childCapacity), 10, 64)
		if err == nil {
			err = writeForEver(dir, capacity)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const killBlocks = 96

func killFile() *storetest.TestFile { return storetest.NewFile(7, killBlocks*mib-12_345) }

// writeForEver writes the blocks that are missing, by two writers, and prints the
// index of each after Write has returned; in a small store again and again.
func writeForEver(dir string, capacity int64) error {
	s, err := store.OpenDisk(store.DiskConfig{Dir: dir, Capacity: capacity, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	f := killFile()
	file, err := s.Create(f.Key, f.Info)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for k := range errs {
		wg.Go(func() {
			for n := int64(k); n < killBlocks || capacity > 0; n += 2 {
				i := n % killBlocks
				if file.Has(i) {
					continue
				}
				data, rec := f.Block(i)
				if errs[k] = file.Write(i, data, rec); errs[k] != nil {
					return
				}
				fmt.Println(i)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	fmt.Println("all")
	select {} // until killed
}

// What a process was told is written is there, and right, whenever that process
// is killed.
func TestKill(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := killFile()
	told := map[int64]bool{}
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	for round := range 5 {
		all := killOne(t, exe, dir, 0, 1+rng.IntN(2*killBlocks/5), told)
		s := openDisk(t, store.DiskConfig{Dir: dir})
		file := open(t, s, f.Key)
		for i := range told {
			if !file.Has(i) {
				t.Errorf("round %d: block %d was written and is not held", round, i)
				delete(told, i)
				continue
			}
			block := f.Info.Layout().Block(i)
			f.Want(t, file, block.Off, int(block.Len), i%2 == 0)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() || all {
			break
		}
	}
	if len(told) == 0 {
		t.Error("the child wrote nothing")
	}
}

// A process that is killed while it evicts leaves no block that is wrong, and
// none that takes room beyond the capacity.
func TestKillWhileEvicting(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const capacity = 16 * mib
	cfg := store.DiskConfig{Dir: t.TempDir(), Capacity: capacity}
	f := killFile()
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	for round := range 5 {
		killOne(t, exe, cfg.Dir, capacity, 20+rng.IntN(60), map[int64]bool{})
		s := openDisk(t, cfg)
		file := open(t, s, f.Key)
		for i := range f.Blocks() {
			if file.Has(i) {
				block := f.Info.Layout().Block(i)
				f.Want(t, file, block.Off, int(block.Len), i%2 == 0)
			}
		}
		if file.Count() == 0 || s.Used() > capacity {
			t.Errorf("round %d: %d blocks, %d bytes used", round, file.Count(), s.Used())
		}
		if on, ok := store.Allocated(store.DataPath(s, f.Key)); ok && on > s.Used()+mib/2 {
			t.Errorf("round %d: %d bytes on the disk for %d", round, on, s.Used())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killOne starts a child, kills it after n blocks and puts down all that it
// told; it reports whether the child had written everything.
func killOne(t *testing.T, exe, dir string, capacity int64, n int, told map[int64]bool) (all bool) {
	t.Helper()
	child := exec.CommandContext(t.Context(), exe)
	child.Env = append(os.Environ(), childDir+"="+dir, childCapacity+"="+strconv.FormatInt(capacity, 10))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); n-- {
		if lines.Text() == "all" {
			all = true
		} else if i, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
			told[i] = true
		}
		if n == 1 || all {
			if err := child.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if child.Wait() == nil {
		t.Error("the child ended before it was killed")
	}
	return all
}
