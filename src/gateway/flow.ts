/** Bytes on their way to a caller: no faster than it takes them, and not for ever where it takes none. */
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { Millis } from '../units.ts'
import type { UpstreamAnswer } from './upstream.ts'

/** Answers are read up to this size; beyond it nothing is known of them, and they are charged by their length. */
export const MAX_READ_BYTES = 16 * 1024 * 1024

/** Rejects where the caller goes. One that reads nothing for as long as may be is taken to have gone. */
export async function drained(response: ServerResponse, gone: AbortSignal, mostMs: Millis): Promise<void> {
  gone.throwIfAborted()
  // Its connection rather than the response, which has none where it waits behind another.
  const late = setTimeout(() => response.req.socket.destroy(), mostMs)
  try {
    await once(response, 'drain', { signal: gone })
  } finally {
    clearTimeout(late)
  }
}

/**
 * A whole answer as it comes; where its caller has gone, it is read for what it tells, up to the size that is read. With `change` it is
 * kept until it is whole, and its caller gets what that makes of it; beyond the size that is read it goes on as it comes.
 */
export async function pipeWhole(
  answer: UpstreamAnswer,
  response: ServerResponse,
  gone: AbortSignal,
  mostMs: Millis,
  note: (piece: Buffer) => void,
  change?: (text: string) => string,
): Promise<void> {
  let unheard = 0
  let kept: Buffer[] | undefined = change === undefined ? undefined : []
  let size = 0
  for await (const piece of answer.body) {
    note(piece as Buffer)
    size += (piece as Buffer).length
    if (gone.aborted) unheard += (piece as Buffer).length
    else if (kept !== undefined && size <= MAX_READ_BYTES) kept.push(piece as Buffer)
    else {
      const shown = kept === undefined ? piece : Buffer.concat([...kept, piece as Buffer])
      kept = undefined
      if (!response.write(shown)) await drained(response, gone, mostMs).catch(() => {})
    }
    if (unheard > MAX_READ_BYTES) throw new RangeError('an answer that nobody hears goes on and on')
  }
  if (kept === undefined || change === undefined || gone.aborted) response.end()
  else response.end(change(Buffer.concat(kept).toString('utf8')))
}

/** Failures are short. */
const MAX_FAILURE_BYTES = 1024 * 1024

/** What an upstream says of its failure; undefined where that never ends, breaks off, or shows the key that it was sent. */
export async function failureText(
  { body }: UpstreamAnswer,
  key: string | undefined,
): Promise<Buffer | undefined> {
  const pieces: Buffer[] = []
  let size = 0
  try {
    for await (const piece of body) {
      size += (piece as Buffer).length
      if (size > MAX_FAILURE_BYTES) return undefined
      pieces.push(piece as Buffer)
    }
  } catch {
    return undefined
  }
  const whole = Buffer.concat(pieces)
  return key !== undefined && whole.includes(key) ? undefined : whole
}
