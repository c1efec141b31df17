// Package origin reads files from HTTP and HTTPS origins on behalf of a seed:
// one byte range at a time, answered by a body that holds exactly the
// bytes it promises, of exactly one generation, or by an error that says why
// not.
//
// An origin is not trusted to be well-behaved, and neither is the URL, which a
// peer may have named:
//
//   - [Policy] keeps requests away from private, loopback, link-local and cloud
//     metadata addresses. It is asked after name resolution, in the dialer, on
//     every connection, so neither a redirect nor a DNS answer gets round it.
//   - Requests are canonical: fixed header fields, no content coding, and of the
//     requester's fields only Authorization and Cookie.
//   - The generation of every answer is compared with the one expected. If-Range
//     (RFC 9110 section 13.1.5) would let a changed file come back as a 200 from
//     its first byte, which costs the whole file to learn the same.
//   - What a shared cache must not keep (RFC 9111) is refused with
//     [ErrUncacheable]: the caller lets it pass through.
//   - A body that ends early, stalls, trickles below [Limits].MinRate or goes on
//     for ever does no harm: it is counted against its promised length and
//     timed. What is missing is asked for from the next byte on, and must be of
//     the same generation.
//
// A failing origin is not made worse by those who want its files. [Limits] has
// the figures:
//
//   - A request is tried again a few times, after waits that grow and differ.
//   - Of a block that fails, whoever asks and however many, a few requests a
//     minute are sent: by default four. Requests on their way count until they
//     have succeeded, so that a crowd that comes at once is no exception. Of a
//     run of blocks that fails, each is then asked for alone, so that one bad
//     block takes no others with it. Answers of 400 to 499 count for those alone
//     who ask with the same URL, credentials and generation.
//   - An origin of which many requests fail is asked less; what succeeds costs
//     nothing, and makes good for what failed.
//   - Retry-After is honoured: for the task, and when several tasks of an origin
//     were told the same, for the origin.
//   - An origin to which no connection comes about is tried by one request at a
//     time, after waits that grow.
//   - An origin gets a bounded number of requests at once; the others wait in
//     line. Connections are kept, and HTTP/2 is used where it is offered.
//
// A request that is not sent for one of these reasons fails at once with a
// [BudgetError], which wraps the last failure and says when to come again.
//
// A redirect is a request too: of a digest task that is redirected, the budget
// holds for each of the origins on the way, not for their sum.
//
// A file whose length the origin does not tell (in chunks, without
// Content-Length) is yielded to its end, where it has a strong ETag or a digest:
// its end tells the size. Last-Modified says too little without a size, and a body
// that ends with its connection does not tell a whole one from a part: these
// are refused with [ErrUncacheable].
//
// All of this is kept in memory, in tables of bounded size, and is of one
// process: seeds learn of one another's failures by what they answer.
//
// The package stores nothing else and knows no file: the seed decides what a
// failure means.
package origin
