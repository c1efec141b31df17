// Package archtest holds the tests of the tree itself: which package may import
// which, and that everything exported is explained. It has no code that runs
// in a node.
//
// The rules are tables with the reason beside each: whoever meets one finds
// what it protects, and argues with that or keeps to it.
package archtest
