/** What the client's tests share: a real server on an SQLite file, that may be killed, paused and started again. */
import { join } from 'node:path'
import { type Client, type ClientOptions, createClient } from '../client/client.ts'
import { createEngine, sqliteStore } from '../src/index.ts'
import { freePort } from './ports.ts'
import { ADMIN_KEY, type RunningServer, startServer, tempFolder } from './server.ts'

const POLICY = new URL('./client-policy.yaml', import.meta.url).pathname

export interface Scene {
  readonly url: string
  server: RunningServer
  client(options?: Partial<ClientOptions>): Client
  /** An account with that many CU of credits. */
  account(id: string, credits: string, plan?: string): Promise<void>
  kill(): Promise<void>
  /** On the same port, on the same file. */
  restart(): Promise<void>
  audit(): Promise<void>
  close(): Promise<void>
}

export async function openScene(policy = POLICY): Promise<Scene> {
  const folder = tempFolder()
  const store = `sqlite:${join(folder.path, 'sluice.db')}`
  const port = await freePort()
  const start = () => startServer(['--store', store, '--policy', policy, '--port', String(port)])
  const clients: Client[] = []
  const scene: Scene = {
    url: `http://127.0.0.1:${port}`,
    server: await start(),
    client(options) {
      const made = createClient({ url: scene.url, key: ADMIN_KEY, deadlineMs: 5_000, ...options })
      clients.push(made)
      return made
    },
    async account(id, credits, plan = 'credits') {
      const admin = scene.client()
      await admin.createAccount({ id, plan })
      await admin.grant(id, { id: 'g', kind: 'purchased', amount: credits })
    },
    kill: () => scene.server.kill('SIGKILL'),
    async restart() {
      scene.server = await start()
    },
    async audit() {
      const engine = await createEngine({
        store: sqliteStore({ path: store.slice('sqlite:'.length) }),
        sweeps: false,
      })
      const found: unknown[] = []
      await engine.audit({ onDisagreement: (one) => found.push(one) })
      await engine.close()
      if (found.length > 0) throw new Error(`the books disagree: ${JSON.stringify(found.slice(0, 5))}`)
    },
    async close() {
      await Promise.all(clients.map((client) => client.close(1)))
      await scene.kill()
      folder.remove()
    },
  }
  return scene
}
