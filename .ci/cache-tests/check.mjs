// Compares the results of http-cache-tests with what is expected of a node.
//
//   node check.mjs RESULTS EXPECTED
//
// EXPECTED has a line for each test that fails: its name and a letter, the reason,
// which the lines that begin with # explain. A test that fails and is not there
// fails the check; one that passes, but is there, is named.
import fs from 'fs'

const [results, expected] = process.argv.slice(2)
const text = fs.readFileSync(results, 'utf8')
const got = JSON.parse(text.slice(text.indexOf('{')))
const known = new Map(fs.readFileSync(expected, 'utf8').split('\n')
  .filter(line => line && !line.startsWith('#')).map(line => line.split(' ')))
const passed = Object.keys(got).filter(id => got[id] === true)
const failed = Object.keys(got).filter(id => got[id] !== true)
const fresh = failed.filter(id => !known.has(id))
const better = passed.filter(id => known.has(id))
console.log(`${passed.length} of ${passed.length + failed.length} pass`)
for (const id of better) console.log(`${id} passes: take it out of ${expected}`)
for (const id of fresh) console.log(`${id} fails: ${got[id]}`)
if (passed.length + failed.length < 300) {
  console.log('the suite did not run to its end')
  process.exit(1)
}
process.exit(fresh.length === 0 ? 0 : 1)
