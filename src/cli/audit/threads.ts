/** Threads that work parts of an audit out, where one processor is not enough. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { AuditedAccount, AuditMeans, AuditPart } from '../../engine.ts'
import { CliError, type Exit } from '../failure.ts'
import type { Access } from '../target.ts'

/** What a thread is told before it begins. */
export interface Setting {
  readonly store: string
  readonly access: Access
  readonly means: AuditMeans
}
export type Order = { readonly place: number; readonly part: AuditPart } | { readonly close: true }
interface Failure {
  readonly line: string
  readonly exit: Exit
}
export type Answer =
  | { readonly ready: true }
  | { readonly place: number; readonly audited: readonly AuditedAccount[] }
  | { readonly place?: number; readonly failure: Failure }

/** While a thread waits for the store with one part, it works the other out. */
const PARTS_EACH = 2
/**
 * Most of what an audit makes lives for one page. In a young generation of V8's usual size, 16 MB, a part of it is moved to the old
 * one before it dies: two threads took 29 to 33 µs of CPU an entry with that, and 22 to 24 with this, measured in turns.
 */
const YOUNG_MB = 64

export interface Threads {
  readonly atOnce: number
  audit(part: AuditPart): Promise<readonly AuditedAccount[]>
  close(): Promise<void>
}

export async function openThreads(count: number, setting: Setting): Promise<Threads> {
  const threads = await Promise.all(Array.from({ length: count }, () => openThread(setting)))
  return {
    atOnce: count * PARTS_EACH,
    audit(part) {
      const idlest = threads.reduce((least, one) => (one.parts() < least.parts() ? one : least))
      return idlest.audit(part)
    },
    close: async () => {
      await Promise.all(threads.map(({ close }) => close()))
    },
  }
}

async function openThread(setting: Setting) {
  // The package carries JavaScript, the checkout TypeScript.
  const file = import.meta.url.endsWith('.ts') ? './thread.ts' : './thread.js'
  const thread = new Worker(new URL(file, import.meta.url), {
    workerData: setting,
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
  })
  const waiting = new Map<number, PromiseWithResolvers<readonly AuditedAccount[]>>()
  const ready = Promise.withResolvers<void>()
  const ended = once(thread, 'exit')
  let next = 0

  function fail(error: unknown): void {
    ready.reject(error)
    for (const { reject } of waiting.values()) reject(error)
    waiting.clear()
  }
  thread.on('message', (answer: Answer) => {
    if ('ready' in answer) return ready.resolve()
    if ('audited' in answer) {
      waiting.get(answer.place)?.resolve(answer.audited)
      waiting.delete(answer.place)
      return
    }
    const { line, exit } = answer.failure
    const error = new CliError(exit, line)
    if (answer.place === undefined) return fail(error)
    waiting.get(answer.place)?.reject(error)
    waiting.delete(answer.place)
  })
  thread.on('error', fail)
  ended.then(() => fail(new Error('a thread of the audit ended')), fail)
  await ready.promise
  return {
    parts: () => waiting.size,
    audit(part: AuditPart): Promise<readonly AuditedAccount[]> {
      const place = next++
      const answer = Promise.withResolvers<readonly AuditedAccount[]>()
      waiting.set(place, answer)
      thread.postMessage({ place, part } satisfies Order)
      return answer.promise
    },
    async close(): Promise<void> {
      thread.postMessage({ close: true } satisfies Order)
      await ended
    },
  }
}
