/** Calls that decide and meter, made within a millisecond, travel together (`POST /v1/batch`). */
import type { Operation } from '../src/wire.ts'
import { isUnavailable, neverSent, problemFrom, type SluiceError, unavailable } from './error.ts'
import type { CallOptions, Transport } from './transport.ts'

export interface Together {
  /** Answers what the call of that name answers. */
  call(operation: Operation, options?: CallOptions): Promise<unknown>
}

export interface TogetherOptions {
  readonly transport: Transport
  /** How long the first call waits for others, in milliseconds; 0 sends each for itself. */
  readonly withinMs: number
  readonly deadlineMs: number
}

/** What the server takes in one request. */
const MOST = 256
/** Requests on their way at once; what comes meanwhile waits and travels together. */
const AT_ONCE = 4
/** Fewer are not worth a request of their own while others are on their way. */
const LEAST = 32

interface Waiting {
  readonly operation: Operation
  readonly deadlineMs: number
  readonly until: number
  readonly resolve: (answer: unknown) => void
  readonly reject: (error: unknown) => void
  /** Nobody waits for it any more. */
  left: boolean
}

export function createTogether({ transport, withinMs, deadlineMs: usual }: TogetherOptions): Together {
  let waiting: Waiting[] = []
  let onTheWay = 0
  /** Calls in the requests that are on their way. */
  let travelling = 0
  let timer: ReturnType<typeof setTimeout> | undefined

  function comeAround(): void {
    if (timer === undefined && waiting.length > 0) timer = setTimeout(depart, withinMs)
  }

  function depart(): void {
    timer = undefined
    waiting = waiting.filter((one) => !one.left)
    // Callers whose answers come together call again together: if one request took all of them, the server would stand still
    // while they are read and written here, and this process while it decides.
    const share = Math.ceil((waiting.length + travelling) / AT_ONCE)
    const room = Math.min(MOST, Math.max(LEAST, share))
    while (waiting.length > 0 && onTheWay < AT_ONCE) {
      // One deadline for all of a request, so that a call in a hurry does not end it for the others.
      const { deadlineMs } = waiting[0] as Waiting
      const group: Waiting[] = []
      const others: Waiting[] = []
      for (const one of waiting)
        (one.deadlineMs === deadlineMs && group.length < room ? group : others).push(one)
      waiting = others
      onTheWay++
      travelling += group.length
      travel(group).finally(() => {
        onTheWay--
        travelling -= group.length
        comeAround()
      })
    }
  }

  async function travel(group: readonly Waiting[]): Promise<void> {
    const [first] = group as [Waiting]
    const left = first.until - performance.now()
    if (left <= 0) {
      const late = neverSent(unavailable('there was no time left to ask Sluice'))
      for (const one of group) one.reject(late)
      return
    }
    try {
      if (group.length === 1) {
        const { op, ...body } = first.operation
        return first.resolve(await transport.send('POST', `/v1/${op}`, body, { deadlineMs: left }))
      }
      const operations = group.map(({ operation }) => operation)
      const body = await transport.send('POST', '/v1/batch', { operations }, { deadlineMs: left })
      const { results } = body as {
        readonly results: readonly { readonly status: number; readonly body: unknown }[]
      }
      group.forEach((one, place) => {
        const result = results[place]
        if (result === undefined) one.reject(unavailable('Sluice answered fewer calls than were sent'))
        else if (result.status === 200) one.resolve(result.body)
        else refuse(one, problemFrom(result.status, result.body))
      })
    } catch (error) {
      for (const one of group) one.reject(error)
    }
  }

  /** What could not be done now is tried again, as long as there is time. */
  function refuse(one: Waiting, error: SluiceError): void {
    const pause = error.retryAfterMs ?? 20
    if (!isUnavailable(error) || performance.now() + pause >= one.until) return one.reject(error)
    setTimeout(() => {
      if (one.left) return
      waiting.push(one)
      comeAround()
    }, pause)
  }

  return {
    call(operation, { deadlineMs = usual, signal } = {}) {
      if (withinMs === 0) {
        const { op, ...body } = operation
        return transport.send('POST', `/v1/${op}`, body, { deadlineMs, signal })
      }
      return new Promise((resolve, reject) => {
        signal?.throwIfAborted()
        const end = (): void => signal?.removeEventListener('abort', leave)
        const one: Waiting = {
          operation,
          deadlineMs,
          until: performance.now() + deadlineMs,
          resolve: (answer) => {
            end()
            resolve(answer)
          },
          reject: (error) => {
            end()
            reject(error)
          },
          left: false,
        }
        function leave(): void {
          one.left = true
          one.reject(signal?.reason)
        }
        signal?.addEventListener('abort', leave, { once: true })
        waiting.push(one)
        comeAround()
      })
    },
  }
}
