import { SluiceError } from '../../errors.ts'
import { type Connection, connect } from './connection.ts'

/** A few connections, made when they are first needed and made anew when they break. */
export interface Pool {
  /** A connection that nobody else uses until it is given back. Rejects with `unavailable`. */
  take(): Promise<Connection>
  give(connection: Connection): void
  /** One statement or a few, on any free connection. */
  use<T>(work: (connection: Connection) => Promise<T>): Promise<T>
  close(): Promise<void>
}

/** After a connection could not be made, others are told at once for this long: callers must not pile up behind a dead host. */
const REST_MS = 200

export function createPool(url: string, name: string, size: number): Pool {
  const free: Connection[] = []
  const waiting: {
    readonly resolve: (connection: Connection) => void
    readonly reject: (error: unknown) => void
  }[] = []
  let out = 0
  let closed = false
  let failure: { readonly error: unknown; readonly until: number } | undefined

  async function open(): Promise<Connection> {
    if (failure !== undefined && performance.now() < failure.until) throw failure.error
    try {
      const connection = await connect(url, name)
      failure = undefined
      return connection
    } catch (error) {
      failure = { error, until: performance.now() + REST_MS }
      throw error
    }
  }

  async function take(): Promise<Connection> {
    if (closed) throw new SluiceError('closing', 'The store is closing')
    for (let connection = free.pop(); connection !== undefined; connection = free.pop()) {
      if (connection.broken) continue
      out++
      return connection
    }
    if (out >= size) return new Promise((resolve, reject) => waiting.push({ resolve, reject }))
    out++
    try {
      return await open()
    } catch (error) {
      out--
      // Those who wait would wait for nothing.
      for (const one of waiting.splice(0)) one.reject(error)
      throw error
    }
  }

  function give(connection: Connection): void {
    out--
    const next = waiting.shift()
    if (next !== undefined) {
      if (!connection.broken) {
        out++
        next.resolve(connection)
      } else take().then(next.resolve, next.reject)
    } else if (closed || connection.broken) connection.end().catch(() => {})
    else free.push(connection)
  }

  return {
    take,
    give,
    async use(work) {
      const connection = await take()
      try {
        return await work(connection)
      } finally {
        give(connection)
      }
    },
    async close() {
      closed = true
      await Promise.all(free.splice(0).map((connection) => connection.end().catch(() => {})))
    },
  }
}
