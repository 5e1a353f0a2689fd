/**
 * Refusals stand outside the chain, in a bounded log: the first of its account, subject, reason and second is kept whole, the
 * rest of that second are counted, so that an attack cannot fill the disk.
 */
import type { RefusalLine, Store } from '../store.ts'
import type { DecisionAnswer, Subject } from '../wire.ts'
import type { EngineMetrics } from './contract.ts'

const FLUSH_MS = 1_000
/** Lines that may wait for a flush; further ones are only counted. */
const MAX_WAITING = 10_000

export interface RefusalLog {
  note(account: string, subject: Subject, feature: string, answer: DecisionAnswer): void
  flush(): Promise<void>
  close(): Promise<void>
}

export function createRefusalLog(store: Store, metrics: EngineMetrics): RefusalLog {
  let waiting = new Map<string, RefusalLine>()
  let timer: NodeJS.Timeout | undefined

  async function flush(): Promise<void> {
    timer = undefined
    if (waiting.size === 0) return
    const lines = [...waiting.values()]
    waiting = new Map()
    // A store that cannot write now loses the count, never an allow: the design says so.
    await store.logRefusals(lines).then(
      () => {
        metrics.refusalsLogged += lines.length
      },
      () => {},
    )
  }

  return {
    note(account, subject, feature, answer) {
      metrics.refusalsCounted += 1
      const second = Math.floor(answer.decided_at / 1_000)
      const key = JSON.stringify([account, subject, answer.reason, second])
      const same = waiting.get(key)
      if (same !== undefined) {
        waiting.set(key, { ...same, count: same.count + 1 })
        return
      }
      if (waiting.size >= MAX_WAITING) return
      const { request_id: requestId, reason, decided_at: at } = answer
      waiting.set(key, {
        account,
        requestId,
        subject,
        reason,
        at,
        count: 1,
        answer: JSON.stringify({ feature, answer }),
      })
      timer ??= setTimeout(flush, FLUSH_MS).unref()
    },
    flush,
    async close() {
      clearTimeout(timer)
      await flush()
    },
  }
}
