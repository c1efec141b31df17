//go:build race

package sim

// raced: simulations are made smaller under the race detector.
const raced = true
