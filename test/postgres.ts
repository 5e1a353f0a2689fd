/**
 * A PostgreSQL for tests: an empty database on the server that tests use, or a whole server of a test's own that it may
 * pause and kill. The README beside this file says which server that is.
 */
import { execFile, execFileSync, spawn } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFileSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Client } from 'pg'

const LOCAL = '127.0.0.1:5432'
const PREFIX = 'sluice_test_'
const FORGOTTEN_AFTER_SECONDS = 3_600
/** A process id that no system gives. */
const NOBODY = 2_147_483_647
const WHAT_TO_DO =
  'apt-get install postgresql, or set SLUICE_TEST_POSTGRES to the URL of a server where databases may be made'

export interface TestDatabase {
  readonly url: string
  /** Drops the database, also while somebody is connected to it. */
  drop(): Promise<void>
}

/**
 * An empty database of its own, in UTF-8 and the locale C, on the server that tests use. `local` is where a
 * server is looked for that nobody named; tests of this file look elsewhere.
 */
export async function testDatabase(local = LOCAL): Promise<TestDatabase> {
  const server = await servers.getOrInsertComputed(local, findServer)
  const name = `${PREFIX}${seconds().toString(16).padStart(8, '0')}${randomBytes(8).toString('hex')}`
  // The template that nobody writes to: a cluster made under LANG=C has SQL_ASCII in the other one.
  await connected(server, (client) =>
    client.query(`create database ${name} template template0 encoding 'UTF8' locale 'C'`),
  )
  return {
    url: withDatabase(server, name),
    drop: () =>
      connected(server, async (client) => {
        await client.query(`drop database if exists ${name} with (force)`)
      }),
  }
}

/** The server found for each place to look at: it is looked for, and if need be started, once a process. */
const servers = new Map<string, Promise<string>>()

async function findServer(local: string): Promise<string> {
  const named = process.env.SLUICE_TEST_POSTGRES
  if (named) {
    const refusal = await refusalOf(named)
    if (refusal) throw new Error(`SLUICE_TEST_POSTGRES cannot be used (${refusal}): ${WHAT_TO_DO}`)
    await dropForgotten(named)
    return named
  }
  for (const user of ['postgres', ownName()]) {
    const url = `postgres://${encodeURIComponent(user)}@${local}/postgres`
    if ((await refusalOf(url)) !== null) continue
    await dropForgotten(url)
    return url
  }
  return (await startCluster()).url()
}

/** Why no databases can be made on a server, in one line, or null where they can. */
async function refusalOf(url: string): Promise<string | null> {
  try {
    const { rows } = await connected(url, (client) =>
      client.query(`select (rolsuper or rolcreatedb) as may, pg_is_in_recovery() as standby
        from pg_roles where rolname = current_user`),
    )
    if (rows[0]?.standby !== false) return 'it is a standby'
    return rows[0].may === true ? null : 'its user may not make databases'
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException
    return (message || code || 'it does not answer').replaceAll(/\s+/g, ' ')
  }
}

/**
 * Drops databases of test processes that ended an hour ago or more without doing so. One that somebody is connected to
 * belongs to a long test; whatever else goes wrong is the next process's to try again.
 */
async function dropForgotten(server: string): Promise<void> {
  try {
    await connected(server, async (client) => {
      const { rows } = await client.query(
        `select datname from pg_database d where datname ~ $1
           and not exists (select from pg_stat_activity a where a.datname = d.datname)
         order by datname limit 20`,
        [`^${PREFIX}[0-9a-f]{24}$`],
      )
      for (const { datname } of rows) {
        const madeAt = Number.parseInt(datname.slice(PREFIX.length, PREFIX.length + 8), 16)
        if (madeAt + FORGOTTEN_AFTER_SECONDS < seconds()) await client.query(`drop database ${datname}`)
      }
    })
  } catch {}
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

function withDatabase(server: string, name: string): string {
  const url = new URL(server)
  url.pathname = `/${name}`
  return url.href
}

function ownName(): string {
  try {
    return userInfo().username
  } catch {
    // A container may run as a number that has no name.
    return 'postgres'
  }
}

const seconds = (): number => Math.floor(Date.now() / 1000)

export interface Cluster {
  /** Its folder: `data`, and the server's `log`. */
  readonly folder: string
  /** The process id of the postmaster. Throws while it does not run. */
  readonly pid: number
  /** Stays the same over restarts. The superuser `postgres` needs no password. */
  url(database?: string): string
  start(): Promise<void>
  /** `immediate` is a crash: nothing is written any more, and the next start recovers from the log. */
  stop(mode: 'immediate' | 'fast'): Promise<void>
  restart(mode: 'immediate' | 'fast'): Promise<void>
  /** Stops the postmaster and all its children where they are: connections stay open, and nothing answers. */
  pause(): Promise<void>
  /** Lets them go on. Does nothing where none is paused; `stop` and `remove` begin with it. */
  resume(): void
  /** Leaves no process and no folder. Happens by itself when the test process ends, however it ends. */
  remove(): Promise<void>
}

/**
 * What is left to do for a cluster, when standard input ends: crash it and remove its folder. A postmaster that was paused
 * hears of it when it goes on, and kills children that are paused still after five seconds.
 */
const END = `
cat >/dev/null
if read -r pid <"$1/data/postmaster.pid"; then
  kill -QUIT "$pid" && kill -CONT "$pid"
  for i in $(seq 200); do
    test -e "$1/data/postmaster.pid" && kill -0 "$pid" && sleep 0.05 || break
  done
fi
rm -rf "$1"`

/**
 * Starts a PostgreSQL of the test's own from the installed binaries, on a free port of 127.0.0.1 and without a Unix socket.
 * It syncs as PostgreSQL does by default; `settings` are those of postgresql.conf.
 */
export async function startCluster(settings: Readonly<Record<string, string>> = {}): Promise<Cluster> {
  const programs = findPrograms()
  const owner = serverUser()
  const folder = mkdtempSync(join(tmpdir(), 'sluice-postgres-'))
  if (owner) chownSync(folder, owner.uid, owner.gid)
  const [data, log] = [join(folder, 'data'), join(folder, 'log')]
  const lock = join(data, 'postmaster.pid')
  const run = (program: string, args: readonly string[]) =>
    promisify(execFile)(join(programs, program), ['-D', data, ...args], {
      cwd: folder,
      env: environment(),
      ...owner,
    })

  const guard = startGuard(folder)
  let port = 0
  let paused: readonly number[] = []
  const postmaster = (): number => Number(readFileSync(lock, 'utf8').split('\n', 1)[0])
  const isRunning = (): boolean => {
    if (!existsSync(lock)) return false
    const id = postmaster()
    return processes().some(({ pid }) => pid === id)
  }
  const resume = (): void => {
    for (const pid of paused) signal(pid, 'SIGCONT')
    paused = []
  }
  const start = async (): Promise<void> => {
    const args = ['-w', '-t', '60', '-l', log, '-o', `-p ${port}`]
    // After the death of a postmaster alone, its children are in the way until they have noticed.
    for (let left = 10; left > 0; left--) {
      // PostgreSQL takes a postmaster for alive that has ended and that nobody has asked about, as it is in containers whose
      // first process never asks. Its lock stays, without it: from the rest of it a start sees whether children are left.
      if (existsSync(lock) && !isRunning())
        writeFileSync(lock, readFileSync(lock, 'utf8').replace(/^\d+/, String(NOBODY)))
      try {
        await run('pg_ctl', ['start', ...args])
        return
      } catch (error) {
        if (left === 1) throw new Error(whyNot(error, log))
      }
      await pause(200)
    }
  }
  const stop = async (mode: 'immediate' | 'fast'): Promise<void> => {
    resume()
    if (isRunning()) await run('pg_ctl', ['stop', '-w', '-t', '60', '-m', mode])
  }
  const beforeEnd = (): void => {
    resume()
    if (!isRunning()) rmSync(lock, { force: true })
  }
  const atExit = (): void => {
    beforeEnd()
    execFileSync('sh', ['-c', END, 'end', folder], { stdio: 'ignore' })
  }
  process.once('exit', atExit)
  const remove = async (): Promise<void> => {
    beforeEnd()
    await guard.end()
    process.off('exit', atExit)
  }

  try {
    // Its first files need no sync: nobody looks at them after a power failure.
    await run('initdb', ['-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'])
    appendFileSync(join(data, 'postgresql.conf'), configuration(settings))
    port = await freePort()
    await start()
  } catch (error) {
    await remove()
    throw error
  }
  return {
    folder,
    get pid() {
      return postmaster()
    },
    url: (database = 'postgres') => `postgres://postgres@127.0.0.1:${port}/${database}`,
    start,
    stop,
    async restart(mode) {
      await stop(mode)
      await start()
    },
    async pause() {
      resume()
      const parent = postmaster()
      paused = [parent]
      // The parent first, and only when it stands are its children counted: it makes new ones at any moment.
      await halt(paused)
      paused = [...childrenOf(parent), parent]
      await halt(paused)
    },
    resume,
    remove,
  }
}

/**
 * A process that waits until this one has ended, by whatever signal, and then does what is left to do. It hears of that
 * from the pipe between them, which nobody else holds. In a session of its own: Ctrl-C is for the tests.
 */
function startGuard(folder: string): { end(): Promise<void> } {
  const guard = spawn('sh', ['-c', END, 'end', folder], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  const ended = once(guard, 'close')
  guard.unref()
  ;(guard.stdin as Socket).unref()
  return {
    async end() {
      guard.ref()
      guard.stdin?.end()
      await ended
    },
  }
}

function configuration(settings: Readonly<Record<string, string>>): string {
  const all = { ...settings, listen_addresses: '127.0.0.1', unix_socket_directories: '' }
  return Object.entries(all)
    .map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`)
    .join('')
}

/** The folder with PostgreSQL's programs: of PATH, or else the newest of Debian's, which it keeps out of PATH. */
export function findPrograms(path = process.env.PATH ?? '', debian = '/usr/lib/postgresql'): string {
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const found = [
    ...path.split(delimiter).filter((folder) => folder !== ''),
    ...versions.map((version) => join(debian, version, 'bin')),
  ].find((folder) => ['initdb', 'pg_ctl', 'postgres'].every((program) => existsSync(join(folder, program))))
  if (found === undefined) throw new Error(`tests need a PostgreSQL: ${WHAT_TO_DO}`)
  return resolve(found)
}

/** PostgreSQL refuses to run as root, and Debian's package brings a user for it. Everybody else runs it as themselves. */
function serverUser(): { readonly uid: number; readonly gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  const id = (what: string): number =>
    Number(execFileSync('id', [what, 'postgres'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))
  try {
    return { uid: id('-u'), gid: id('-g') }
  } catch {
    throw new Error(`as root, tests run PostgreSQL as the user postgres, who is missing: ${WHAT_TO_DO}`)
  }
}

/** PostgreSQL's own variables (PGPORT, PGOPTIONS) are about somebody else's server. */
function environment(): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith('PG'))
  return { ...Object.fromEntries(own), LC_ALL: 'C' }
}

/**
 * A port that is free, and stays free while the server is down for a moment: below those that the system gives to
 * outgoing connections.
 */
async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(15_000, 32_000)
    const server = createServer()
    const isFree = await new Promise<boolean>((tell) => {
      server.once('error', () => tell(false)).listen(port, '127.0.0.1', () => tell(true))
    })
    if (!isFree) continue
    await new Promise((closed) => server.close(closed))
    return port
  }
}

function whyNot(error: unknown, log: string): string {
  const said = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').slice(-10).join('\n') : ''
  return `PostgreSQL did not start: ${error instanceof Error ? error.message : error}\n${said}`
}

/** Sends a signal; a process that has ended meanwhile needs none. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Stops processes and waits until they stand: a signal is only asked for when `kill` comes back. */
async function halt(pids: readonly number[]): Promise<void> {
  for (const pid of pids) signal(pid, 'SIGSTOP')
  const isMoving = (): boolean => processes().some(({ pid, state }) => pids.includes(pid) && state !== 'T')
  while (isMoving()) await pause(2)
}

function childrenOf(parent: number): readonly number[] {
  const children = processes().filter((one) => one.parent === parent)
  return children.map(({ pid }) => pid)
}

interface Process {
  readonly pid: number
  readonly parent: number
  /** As `ps` names it: T is stopped. */
  readonly state: string
}

/** All processes that have not ended. A slim container has no `ps`, and another system no `/proc`. */
function processes(): readonly Process[] {
  const rows =
    process.platform === 'linux'
      ? readdirSync('/proc')
          .filter((name) => /^\d+$/.test(name))
          .map(statOf)
      : execFileSync('ps', ['-A', '-o', 'pid=,stat=,ppid='], { encoding: 'utf8' }).split('\n')
  return rows.flatMap((row) => {
    const [, pid, state, parent] = /^\s*(\d+) (?:\(.*\))?\s*(\w)\S*\s+(\d+)/s.exec(row) ?? []
    return pid === undefined || state === 'Z'
      ? []
      : [{ pid: Number(pid), state: state ?? '', parent: Number(parent) }]
  })
}

function statOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    // It has ended since the folder was read.
    return ''
  }
}
