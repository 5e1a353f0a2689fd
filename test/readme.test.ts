/** What the README promises is run: its start command's target, the calls that are printed, its own calls, its links. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { ROOT, type Server, serve, sluice, temporary } from './process.ts'

const README = readFileSync(join(ROOT, 'README.md'), 'utf8')
const SCRIPTS: Readonly<Record<string, string>> = JSON.parse(
  readFileSync(join(ROOT, 'package.json'), 'utf8'),
).scripts
const commands = [...README.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([, text = '']) =>
  text.trim().split('\n'),
)

/** Runs a line as somebody would who copied it, and reads the answer. */
function run(line: string, env: Readonly<Record<string, string>> = {}): Record<string, unknown> {
  const printed = execFileSync('sh', ['-c', line], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 20_000,
  })
  return JSON.parse(printed)
}

describe('the page', () => {
  test('every command that it names is there', () => {
    assert.deepEqual(
      commands.filter((line) => !line.startsWith('curl ')),
      ['npm ci && npm start', 'npm ci && npm test'],
    )
    for (const [, script = ''] of README.matchAll(/`npm run ([\w:]+)`/g)) assert.ok(SCRIPTS[script], script)
    assert.match(SCRIPTS.start ?? '', /node bin\/sluice\.js serve --demo$/)
  })
  test('every link leads somewhere', () => {
    for (const [, link = ''] of README.matchAll(/\]\(([^)#]+)[^)]*\)/g))
      assert.ok(existsSync(join(ROOT, link)), link)
  })
  test('it fits a screen', () => assert.ok(README.split('\n').length <= 70))
})

describe('the start command', () => {
  const { folder, remove } = temporary()
  const demo = ['--demo', '--store', `sqlite:${join(folder, 'data/sluice.db')}`]
  let server: Server
  before(async () => {
    try {
      execFileSync('curl', ['--version'], { stdio: 'ignore' })
    } catch {
      throw new Error('this test runs the printed curl lines: install curl (apt-get install curl)')
    }
    server = await started()
  })
  after(async () => {
    await server.stop('SIGKILL')
    remove()
  })

  /** All of the start's text has been printed when its last line is there. */
  async function started(): Promise<Server> {
    const one = await serve(demo)
    while (!one.stdout().includes('Ctrl-C')) await new Promise((resolve) => setTimeout(resolve, 20))
    return one
  }
  const printedCalls = (): readonly string[] =>
    server
      .stdout()
      .split('\n')
      .filter((line) => line.startsWith('curl '))
  const key = (): string => /^key +(\S+)/m.exec(server.stdout())?.[1] ?? ''

  let told: Record<string, unknown>
  test('the calls that it prints work as printed: reserve, settle, explain', () => {
    const [reserve = '', settle = '', explain = '', ...more] = printedCalls()
    assert.deepEqual(more, [])
    const reserved = run(reserve)
    assert.deepEqual([reserved.outcome, reserved.granted, reserved.state], ['allow', '118.75', 'open'])
    assert.deepEqual(reserved.from, [
      { source: 'allowance:tasks', amount: '75' },
      { source: 'grant:plan:1', amount: '43.75' },
    ])
    const settled = run(settle)
    assert.deepEqual([settled.charged, settled.returned, settled.state], ['93.75', '25', 'settled'])
    told = run(explain)
    assert.deepEqual([told.state, told.charged], ['settled', '93.75'])
    assert.ok((told.story as string[]).length > 3)
  })

  test('started again it has the same key and the same story, and its calls work again', async () => {
    const [before, explain = ''] = [key(), printedCalls()[2]]
    assert.equal(await server.stop(), 0)
    server = await started()
    assert.equal(key(), before)
    assert.deepEqual(run(explain.replace(/http:\/\/[^/]+/, server.url)), told)
    for (const line of printedCalls()) run(line)
    const { request_id } = run(printedCalls()[2] ?? '')
    assert.notEqual(request_id, told.request_id)
  })

  test('the calls on the page work with the key, and what it says of them is true', () => {
    const [reserve = '', settle = '', explain = ''] = commands
      .filter((line) => line.startsWith('curl '))
      .map((line) => line.replace('http://127.0.0.1:8787', server.url))
    const env = { KEY: key() }
    assert.equal(run(reserve, env).outcome, 'allow')
    const settled = run(settle, env)
    assert.deepEqual([settled.charged, settled.returned], ['93.75', '25'])
    assert.deepEqual(run(settle, env), { ...settled, replayed: true })
    assert.equal(run(explain, env).state, 'settled')
  })

  test('the story is told on the command line too, and the books are clean', async () => {
    const explained = await sluice(['explain', 'ada', 'r1', ...demo.slice(1)])
    assert.match(explained.stdout, /Charged +93\.75 CU/)
    const audited = await sluice(['audit', ...demo.slice(1)])
    assert.deepEqual([audited.code, audited.stderr], [0, ''], audited.stdout)
  })
})

test('the demonstration replays, audits and explains, and leaves nothing behind', () => {
  const { folder, remove } = temporary()
  const env = { ...process.env, TMPDIR: folder, NO_COLOR: '1' }
  const told = execFileSync(process.execPath, ['examples/demo.ts'], {
    cwd: ROOT,
    encoding: 'utf8',
    env,
    timeout: 60_000,
  })
  assert.match(told, /^allow +granted +[\d,]+ /m)
  assert.match(told, /^Nothing disagrees: /m)
  assert.match(told, /Held: [\d.]+ CU from the allowance included and [\d.]+ CU from grant plan:1/)
  assert.match(told, /State +refused\n.*\n\n.*Refused: .*\(allowance_spent\)/)
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('sluice-')),
    [],
  )
  remove()
})
