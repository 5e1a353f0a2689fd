/** What happens in an account, as server-sent events (HTML Standard, 9.2): resumable by Last-Event-ID, at the reader's pace. */
import type { ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import Type from 'typebox'
import { SluiceError } from '../../errors.ts'
import type { AccountEvent } from '../../wire.ts'
import { bindSubject } from '../auth.ts'
import { type App, callerOf, type Door, READ_OWN } from '../door.ts'
import { AccountParams, subjectQuery } from '../query.ts'

const EVENT_STREAM = 'text/event-stream'
/** What a reader waits before it comes back, unless it knows better. */
const RETRY_MS = 1_000
const KIND = '(account|entry|refusal)'
const Query = subjectQuery({
  events: {
    type: 'string',
    pattern: `^${KIND}(,${KIND})*$`,
    description: 'Which events: of account, entry, refusal, with commas between, once; absent, all',
  },
})
const Resume = Type.Object({
  'Last-Event-ID': Type.Optional(
    Type.String({
      pattern: '^(0|[1-9][0-9]{0,14})$',
      description: 'The `id` of the last event that was read: a whole number of at most 15 digits, once',
    }),
  ),
})

export function events(app: App, { engine, auth, heartbeatMs }: Door): void {
  const open = new Map<AbortController, ServerResponse>()
  let closing = false
  app.addHook('preClose', (done) => {
    closing = true
    for (const [ending, response] of open) {
      // One whose reader does not read would never be through with what it has.
      if (response.writableNeedDrain) response.destroy()
      ending.abort()
    }
    done()
  })
  app.get(
    '/v1/accounts/:id/events',
    {
      // Of a stream there is no head without its body.
      exposeHeadRoute: false,
      schema: { params: AccountParams, querystring: Query, headers: Resume },
      config: {
        call: {
          id: 'watchAccount',
          tag: 'books',
          says: 'Watch an account: its state, its entries and refusals as they come, as server-sent events',
          roles: READ_OWN,
          scope: 'subject',
          errors: ['account_unknown'],
        },
        media: [EVENT_STREAM],
      },
    },
    async (request, reply) => {
      const { events: chosen, ...asked } = request.query
      const subject = bindSubject(request.key, Object.keys(asked).length === 0 ? undefined : asked, '')
      const kinds = chosen?.split(',') as AccountEvent['event'][] | undefined
      const lastId = request.headers['last-event-id'] as string | undefined
      const ending = new AbortController()
      const { signal } = ending
      const response = reply.raw
      const end = (): void => ending.abort()
      open.set(ending, response)
      signal.addEventListener('abort', () => open.delete(ending), { once: true })
      response.once('close', end)
      const after = lastId === undefined ? undefined : Number(lastId)
      const source = engine
        .watch(request.params.id, { after, subject, events: kinds, signal }, callerOf(request.key))
        [Symbol.asyncIterator]()
      const first = await source.next().catch((error: unknown) => {
        end()
        throw asHeader(error)
      })
      if (first.done || closing) {
        end()
        throw new SluiceError('closing', 'The node is shutting down.', {
          remedy: 'Try another node, or this one later.',
          retryAfterMs: RETRY_MS,
        })
      }
      const frames = framesOf(source, end)
      // An `id` without data tells nothing, but where to go on from.
      frames.push(`retry: ${RETRY_MS}\nid: ${first.value.seq}\n\n`)
      if (kinds === undefined || kinds.includes('account')) frames.push(frameOf(first.value))
      const beat = setInterval(() => void heartbeat(), heartbeatMs).unref()
      async function heartbeat(): Promise<void> {
        // A key that cannot be looked at now is not a key that was revoked.
        const isRefused = await Promise.resolve()
          .then(() => auth.key(request.headers.authorization))
          .then(
            () => false,
            (error: unknown) => error instanceof SluiceError && error.code === 'unauthorized',
          )
        if (isRefused) end()
        else if (!frames.destroyed && !signal.aborted && frames.readableLength === 0) frames.push(':\n\n')
      }
      signal.addEventListener('abort', () => clearInterval(beat), { once: true })
      return reply
        .header('content-type', `${EVENT_STREAM}; charset=utf-8`)
        .header('x-accel-buffering', 'no')
        .send(frames)
    },
  )
}

/** The events as frames, asked for as the reader takes them. */
function framesOf(source: AsyncIterator<AccountEvent>, end: () => void): Readable {
  let isAsking = false
  const frames = new Readable({
    // What was pushed before is read first.
    read() {
      if (isAsking) return
      isAsking = true
      source.next().then(
        ({ done, value }) => {
          isAsking = false
          if (!frames.destroyed) frames.push(done === true ? null : frameOf(value))
        },
        (error) => frames.destroy(error),
      )
    },
    destroy(error, done) {
      end()
      done(error)
    },
  })
  return frames
}

/** Entries are the same for all who are told of them at once. */
const frames = new WeakMap<object, string>()
function frameOf(event: AccountEvent): string {
  const known = event.event === 'entry' ? frames.get(event.entry) : undefined
  if (known !== undefined) return known
  const frame = `id: ${event.seq}\nevent: ${event.event}\ndata: ${JSON.stringify(event)}\n\n`
  if (event.event === 'entry') frames.set(event.entry, frame)
  return frame
}

/** Where the entry to go on after came from. */
function asHeader(error: unknown): unknown {
  if (!(error instanceof SluiceError) || error.detail.path !== '/after') return error
  return new SluiceError(error.code, `Last-Event-ID${error.message.slice('/after'.length)}`, {
    ...error.detail,
    path: '/last-event-id',
    remedy: 'Send the `id` of an event of this account, or no header to begin with what comes now.',
  })
}
