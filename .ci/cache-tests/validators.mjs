// Stands between a node and the suite's server, and makes of each of its answers one
// that a node can carry: a 200 without ETag and Last-Modified gets an ETag, and a
// HEAD, by which a node validates, becomes the conditional GET that the suite
// waits for, whose 304 becomes the answer to a HEAD. Requests of a seed, which sends
// fields of its own alone, get the number that the suite gives to its client's.
//
//   node validators.mjs PORT SERVERPORT
import http from 'http'
import { createHash } from 'crypto'

const [port, upstream] = process.argv.slice(2).map(Number)
const last = new Map() // path → the validators that were sent last
const count = new Map() // path → requests so far

http.createServer((req, res) => {
  const test = req.url.startsWith('/test/')
  const head = test && req.method === 'HEAD'
  const headers = { ...req.headers }
  const known = last.get(req.url)
  count.set(req.url, (count.get(req.url) || 0) + 1)
  if (test && !headers['req-num']) headers['req-num'] = String(count.get(req.url)) // a seed's own requests have the client's field not
  if (head && known) {
    if (known.etag) headers['if-none-match'] = known.etag
    if (known.modified) headers['if-modified-since'] = known.modified
  }
  const out = http.request({ host: '127.0.0.1', port: upstream, path: req.url, method: head ? 'GET' : req.method, headers }, answer => {
    const chunks = []
    answer.on('data', chunk => chunks.push(chunk))
    answer.on('error', () => res.destroy())
    answer.on('end', () => {
      const body = Buffer.concat(chunks)
      const raw = answer.rawHeaders.reduce((all, v, i) => { if (i % 2) all[all.length - 1].push(v); else all.push([v]); return all }, [])
        .filter(([name]) => !/^(connection|keep-alive|transfer-encoding)$/i.test(name))
      let status = answer.statusCode
      if (test) {
        let etag = answer.headers.etag; let modified = answer.headers['last-modified']
        if (head && status === 304 && known) {
          status = 200
          if (!etag && known.etag) raw.push(['ETag', etag = known.etag])
          if (!modified && known.modified) raw.push(['Last-Modified', modified = known.modified])
          raw.push(['Content-Length', String(known.length)])
        } else if (status === 200 && !etag && !modified) {
          raw.push(['ETag', etag = '"' + createHash('sha256').update(body).digest('hex').slice(0, 16) + '"'])
        }
        if (status === 200) last.set(req.url, { etag, modified, length: head && known && answer.statusCode === 304 ? known.length : body.length })
      }
      if (status === 200 && !raw.some(([name]) => /^content-length$/i.test(name))) raw.push(['Content-Length', String(body.length)])
      const fields = {}
      for (const [name, value] of raw) fields[name] = name in fields ? [].concat(fields[name], value) : value
      try {
        res.writeHead(status, answer.statusMessage, fields)
        res.end(head ? undefined : body)
      } catch { res.destroy() }
    })
  })
  out.on('error', () => res.destroy())
  req.pipe(out)
}).listen(port, '127.0.0.1', () => console.log('Listening'))
