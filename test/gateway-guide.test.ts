/** The guide of the gateway, followed as it is printed: its files are the files, its steps lead to an answer. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { startUpstream } from '../examples/upstream/server.ts'
import { ROOT, type Server, serve, sluice, temporary } from './process.ts'

const GUIDE = readFileSync(join(ROOT, 'docs/guides/gateway.md'), 'utf8')
const CONFIG = readFileSync(join(ROOT, 'examples/gateway.yaml'), 'utf8')

test('the guide of the gateway shows the configuration as the file has it', () => {
  assert.ok(GUIDE.includes(`\`\`\`yaml\n${CONFIG}\`\`\`\n`))
})

test('its steps lead to an answer by curl and by its program, charged to the account', async (t) => {
  const { folder, remove } = temporary()
  const upstream = await startUpstream()
  let server: Server | undefined
  t.after(async () => {
    await server?.stop('SIGKILL')
    await upstream.close()
    remove()
  })
  // Ports of this machine that are free take the place of those that are printed.
  const config = join(folder, 'gateway.yaml')
  writeFileSync(config, CONFIG.replace('http://127.0.0.1:9000', upstream.url))
  const store = { SLUICE_STORE: `sqlite:${join(folder, 'sluice.db')}` }
  const secrets: string[] = []
  const lines = [...GUIDE.matchAll(/^npx sluice (.*)$/gm)].map(([, line = '']) => line.split(' '))
  for (const [command = '', ...args] of lines) {
    if (command === 'serve') {
      const placed = args.map((arg) => (arg === 'examples/gateway.yaml' ? config : arg))
      server = await serve([...placed, '--gateway-port', '0'], store)
    } else {
      const url = server === undefined ? store : { SLUICE_URL: server.url, SLUICE_KEY: secrets[0] ?? '' }
      const { code, stdout, stderr } = await sluice([command, ...args], url)
      assert.equal(code, 0, stderr)
      if (command === 'key') secrets.push(stdout.trim())
    }
  }
  let url: string | undefined
  while (url === undefined) {
    url = /The gateway listens on (http:\S+);/.exec(server?.stderr() ?? '')?.[1]
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  const env = { ...process.env, KEY: secrets[1] ?? '' }
  const curl = (/^curl .*$/m.exec(GUIDE)?.[0] ?? '').replace('http://127.0.0.1:8788', url)
  const answered = await promisify(execFile)('sh', ['-c', curl], { env })
  assert.match(answered.stdout, /"delta":\{"content":/)
  assert.match(answered.stdout, /data: \[DONE\]\n\n$/)

  const program = /```ts\n([\s\S]*?)```/.exec(GUIDE)?.[1] ?? ''
  const text = program.replace('http://127.0.0.1:8788', url)
  const written = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', text], {
    ...{ cwd: ROOT, env },
  })
  assert.match(written.stdout, /^\p{Lu}.{20,}/u)
  const { stdout } = await sluice(['account', 'entries', 'acme'], {
    ...{ SLUICE_URL: server?.url ?? '', SLUICE_KEY: secrets[0] ?? '' },
  })
  assert.match(stdout, /charge/)
})
