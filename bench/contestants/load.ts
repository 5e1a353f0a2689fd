/**
 * The load: keep-alive connections of raw sockets, one a caller, each with one request on its way as HTTP clients have. It
 * makes bodies, counts answers and looks only at their status, so that it takes as little as can be of the cores it shares
 * with the server.
 */
import { connect, type Socket } from 'node:net'
import { perform } from '../contestant.ts'
import { ADMIN_KEY, CALLERS, type Crowd, crowdOf, reserveRequest } from '../workload.ts'

/** Batches on their way at once. */
const BATCHES = Number(process.env.BATCHES ?? 32)

await perform(async ({ port, accounts, batch }) => {
  const crowd = crowdOf(Number(accounts))
  const operations = Number(batch ?? 1)
  // A batch waits as one: a few on their way keep as many operations waiting as single requests would.
  const lines = await Promise.all(
    Array.from({ length: operations === 1 ? CALLERS : BATCHES }, () =>
      openLine(Number(port), () => post(crowd, operations)),
    ),
  )
  return {
    async run(seconds) {
      const startedAt = performance.now()
      const until = startedAt + seconds * 1000
      const answered = await Promise.all(lines.map((line) => line.run(until)))
      const answers = answered.reduce((sum, count) => sum + count, 0)
      return { perSecond: (answers * operations) / ((performance.now() - startedAt) / 1000) }
    },
    async close() {
      for (const line of lines) line.close()
    },
  }
})

/** One request as it goes over the wire. */
function post(crowd: Crowd, operations: number): string {
  const body =
    operations === 1
      ? JSON.stringify(reserveRequest(crowd))
      : JSON.stringify({
          operations: Array.from({ length: operations }, () => ({ op: 'reserve', ...reserveRequest(crowd) })),
        })
  const path = operations === 1 ? '/v1/reserve' : '/v1/batch'
  return `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer ${ADMIN_KEY}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`
}

interface Line {
  /** Sends one request after the other until an instant, and answers how many were answered. */
  run(until: number): Promise<number>
  close(): void
}

async function openLine(port: number, request: () => string): Promise<Line> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  let until = 0
  let answered = 0
  let finished: ((answers: number) => void) | undefined
  let failed: ((error: Error) => void) | undefined

  const send = (): void => void socket.write(request(), 'latin1')
  onAnswer(
    socket,
    () => {
      answered++
      if (performance.now() < until) send()
      else finished?.(answered)
    },
    (error) => failed?.(error),
  )
  return {
    run: (end) =>
      new Promise((resolve, reject) => {
        finished = resolve
        failed = reject
        until = end
        answered = 0
        send()
      }),
    close: () => socket.destroy(),
  }
}

const HEAD_END = Buffer.from('\r\n\r\n')
const LENGTH = Buffer.from('content-length: ')
const OK = Buffer.from('HTTP/1.1 200 ')

/** Tells when an answer has come whole. Every answer of Fastify's has a length. */
function onAnswer(socket: Socket, onWhole: () => void, onError: (error: Error) => void): void {
  let rest: Buffer = Buffer.alloc(0)
  socket.on('error', onError)
  socket.on('close', () => onError(new Error('the server has closed a connection')))
  socket.on('data', (piece: Buffer) => {
    rest = rest.length === 0 ? piece : Buffer.concat([rest, piece])
    const head = rest.indexOf(HEAD_END)
    if (head < 0) return
    const digits = rest.indexOf(LENGTH) + LENGTH.length
    const end = head + HEAD_END.length + Number.parseInt(rest.toString('latin1', digits, digits + 9), 10)
    if (rest.length < end) return
    if (rest.compare(OK, 0, OK.length, 0, OK.length) !== 0)
      return onError(new Error(rest.toString('utf8', 0, Math.min(end, 2_000))))
    rest = Buffer.alloc(0)
    onWhole()
  })
}
