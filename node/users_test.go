package node

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// FuzzUsers: a list that is read has users with hashes, can be written and read
// again, and no error shows a hash.
func FuzzUsers(f *testing.F) {
	const hash = "$2a$04$abcdefghijklmnopqrstuvABCDEFGHIJKLMNOPQRSTUVWXYZabcde"
	for _, s := range []string{
		"a:" + hash, "# c\n\n a b :" + hash + " \r\na b:" + strings.Replace(hash, "2a", "2y", 1) + "\n", ":" + hash, "a:" + hash + "\nb:{SHA}x\n", "a", "a:" + hash + ":b", "", "a:" + strings.Replace(hash, "$04", "$18", 1),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		users, err := readUsers(bytes.NewReader(text))
		if err != nil {
			if len(users) != 0 || strings.Contains(err.Error(), "$2") {
				t.Fatalf("%d users with the error %v", len(users), err)
			}
			return
		}
		var written bytes.Buffer
		for name, hash := range users {
			if cost, err := bcrypt.Cost(hash); err != nil || cost > maxCost || name == "" || strings.ContainsAny(name, ":\n") {
				t.Fatalf("%q has %q, %v", name, hash, err)
			}
			fmt.Fprintf(&written, "%s:%s\n", name, hash)
		}
		again, err := readUsers(&written)
		if err != nil || len(users) == 0 || len(users) > maxUsers || !maps.EqualFunc(users, again, slices.Equal) {
			t.Fatalf("%q is %q, then %q, %v", text, users, again, err)
		}
	})
}
