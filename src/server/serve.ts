/** Listening, and ending well: nothing that was accepted is lost. */
import type { Engine } from '../engine.ts'
import type { App } from './door.ts'

export interface ServeOptions {
  readonly host?: string
  /** 0 takes any free port. */
  readonly port?: number
  /** How long requests in flight may take after `close` before their connections are cut. */
  readonly deadlineMs?: number
}
export interface Served {
  /** `http://127.0.0.1:8080` */
  readonly url: string
  /** Stops accepting, lets requests in flight finish, then closes the engine. May be called more than once. */
  close(): Promise<void>
}

export async function serve(app: App, engine: Engine, options: ServeOptions = {}): Promise<Served> {
  const { host = '127.0.0.1', port = 0, deadlineMs = 10_000 } = options
  const url = await app.listen({ host, port })
  let closed: Promise<void> | undefined
  return { url, close: () => (closed ??= close(app, engine, deadlineMs)) }
}

/**
 * What was accepted by the engine is finished by its own `close`, also where a connection had to be cut before. A
 * connection that turns idle meanwhile would be kept open for the client's next request: it is let go of.
 */
async function close(app: App, engine: Engine, deadlineMs: number): Promise<void> {
  const idle = setInterval(() => app.server.closeIdleConnections(), 20)
  const late = setTimeout(() => app.server.closeAllConnections(), deadlineMs)
  try {
    await app.close()
  } finally {
    clearInterval(idle)
    clearTimeout(late)
    await engine.close()
  }
}
