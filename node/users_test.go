package node

import (
	"bytes"
	"errors"
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
		"a:" + hash, "# c\n\n a b :" + hash + " \r\na b:" + strings.Replace(hash, "2a", "2y", 1) + "\n", ":" + hash, "a:" + hash + "\nb:{SHA}x\n", "a", "a:" + hash + ":b", "", "a:" + strings.Replace(hash, "$04", "$14", 1),
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

// TestUsersTakeAsLong: how long a wrong password takes does not tell who is listed,
// whatever their hashes cost, and a right one takes no longer.
func TestUsersTakeAsLong(t *testing.T) {
	users := make(map[string][]byte)
	for _, cost := range []int{4, 5, 6, 8} {
		hash, err := bcrypt.GenerateFromPassword([]byte("right"), cost)
		if err != nil {
			t.Fatal(err)
		}
		users[fmt.Sprint("cost ", cost)] = hash
	}
	rounds := 0
	check := checkUsers(users, func(hash, password []byte) error {
		cost, err := bcrypt.Cost(hash)
		if err != nil {
			t.Fatal(err)
		}
		rounds += 1 << cost
		err = bcrypt.CompareHashAndPassword(hash, password)
		if err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			t.Errorf("%s: %v", hash, err)
		}
		return err
	})
	for _, name := range append(slices.Sorted(maps.Keys(users)), "nobody", "") {
		if rounds = 0; check(name, "wrong") || rounds != 1<<8 {
			t.Errorf("%q: %d rounds for a wrong password, want %d", name, rounds, 1<<8)
		}
		cost, _ := bcrypt.Cost(users[name])
		if rounds = 0; check(name, "right") != (users[name] != nil) || users[name] != nil && rounds != 1<<cost {
			t.Errorf("%q: %d rounds for the right password, want %d", name, rounds, 1<<cost)
		}
	}
}

// TestUsersCost: hashes whose check takes seconds are refused.
func TestUsersCost(t *testing.T) {
	for cost, good := range map[int]bool{4: true, 5: true, 10: true, 13: true, 14: false, 17: false, 31: false} {
		if _, err := readUsers(strings.NewReader("a:" + string(noUser(cost)))); good != (err == nil) {
			t.Errorf("cost %d: %v", cost, err)
		}
	}
}
