/** Access whose work ends elsewhere: when a response has been sent, or a stream has been read. */
import type { AccessOptions, AccessRequest, Refused } from './access.ts'
import type { Client } from './client.ts'
import type { Lease } from './lease.ts'

export interface Opened {
  readonly ok: true
  readonly lease: Lease
  /**
   * Ends it, once; what comes later changes nothing. `done` charges what was reported, and what was not as estimated;
   * `failed` what was reported alone; `cutOff` likewise, and aborts the lease.
   */
  end(how: 'done' | 'failed' | 'cutOff'): Promise<void>
}

const FAILED = new Error('the work has failed')
const CUT_OFF = new Error('nobody waits for the work any more')

/** Rejects where `access` would. */
export function open(
  client: Pick<Client, 'access'>,
  request: AccessRequest,
  options: AccessOptions = {},
): Promise<Opened | Refused> {
  const gone = new AbortController()
  const signal = options.signal === undefined ? gone.signal : AbortSignal.any([gone.signal, options.signal])
  return new Promise((resolve, reject) => {
    let leave = (): void => {}
    const running = client.access(
      request,
      (lease) =>
        new Promise<void>((done, failed) => {
          // Whoever gives up may never come to an end; a lease that is spent leaves it to the work.
          leave = () => failed(signal.reason)
          signal.addEventListener('abort', leave, { once: true })
          if (signal.aborted) leave()
          resolve({
            ok: true,
            lease,
            async end(how) {
              if (how === 'done') done()
              else if (how === 'failed') failed(FAILED)
              else gone.abort(CUT_OFF)
              await running.catch(() => {})
            },
          })
          // A signal that lives for long, and is listened to, keeps all that was made from it.
        }).finally(() => signal.removeEventListener('abort', leave)),
      { ...options, signal },
    )
    running.then((answer) => {
      if (!answer.ok) resolve(answer)
    }, reject)
  })
}
