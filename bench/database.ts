/** Databases of the bench's own on a PostgreSQL server. */
import { randomBytes } from 'node:crypto'
import { Client } from 'pg'

/** Where a server is looked for that nobody named. */
export const SERVER = 'postgres://postgres@127.0.0.1:5432'
const PREFIX = 'sluice_bench_'
const FORGOTTEN_AFTER_SECONDS = 3_600

/** What answers there, or why nothing does, each in one line. */
export async function versionOf(
  server: string,
): Promise<{ readonly version: string } | { readonly problem: string }> {
  const { host } = new URL(server)
  try {
    return await connected(server, async (client) => {
      const { rows } = await client.query(`select current_setting('server_version') as version,
        current_setting('fsync') as fsync, current_setting('shared_buffers') as buffers`)
      const { version, fsync, buffers } = rows[0]
      return { version: `PostgreSQL ${version} on ${host}, fsync ${fsync}, shared buffers ${buffers}` }
    })
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException
    return {
      problem: `no PostgreSQL can be used on ${host} (${message || code}): start one, or name another with --postgres URL or SLUICE_TEST_POSTGRES`,
    }
  }
}

export interface Database {
  readonly url: string
  /** Drops it, also while somebody is connected to it. */
  drop(): Promise<void>
}

/** An empty database, UTF-8 and in the order of code points whatever the server's default is. */
export async function makeDatabase(server: string): Promise<Database> {
  const name = `${PREFIX}${seconds().toString(16)}${randomBytes(8).toString('hex')}`
  await connected(server, async (client) => {
    await dropForgotten(client)
    await client.query(`create database ${name} template template0 encoding 'UTF8' locale 'C'`)
  })
  const url = new URL(server)
  url.pathname = `/${name}`
  return {
    url: url.href,
    drop: () =>
      connected(server, async (client) => void (await client.query(`drop database ${name} with (force)`))),
  }
}

/** Drops databases of benches that were killed an hour ago or more; one that somebody is connected to is a long run's. */
async function dropForgotten(client: Client): Promise<void> {
  const { rows } = await client.query(
    `select datname from pg_database d where datname ~ $1
       and not exists (select from pg_stat_activity a where a.datname = d.datname)`,
    [`^${PREFIX}[0-9a-f]{24}$`],
  )
  for (const { datname } of rows) {
    const madeAt = Number.parseInt(datname.slice(PREFIX.length, PREFIX.length + 8), 16)
    // Somebody else may have dropped it, or connected to it, since.
    if (madeAt + FORGOTTEN_AFTER_SECONDS < seconds())
      await client.query(`drop database ${datname}`).catch(() => {})
  }
}

const seconds = (): number => Math.floor(Date.now() / 1000)

/** Bytes that the server has written to its log so far, and those that the database's tables and indexes take. */
export function bytesOf(url: string): Promise<number> {
  return connected(url, async (client) => {
    const { rows } = await client.query(
      `select (pg_current_wal_lsn() - '0/0' + pg_database_size(current_database()))::float8 as bytes`,
    )
    return rows[0].bytes as number
  })
}

async function connected<T>(url: string, run: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  // What happens to the connection is told by the query; an event that nobody hears would end the process.
  client.on('error', () => {})
  await client.connect()
  try {
    return await run(client)
  } finally {
    await client.end()
  }
}
