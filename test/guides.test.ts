/**
 * The guides' programs, run as a stranger would run them: copied into an empty project that has installed the packed client,
 * before a real Sluice. And what the guides show is what the files say and what comes back.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { createClient } from '../client/index.ts'
import { openScene, type Scene } from './client.ts'
import { type OpenAIApi, startOpenAI } from './openai-api.ts'
import { CLIENT_NEEDS, type Guest, installPacked, ROOT } from './pack.ts'
import { freePort } from './ports.ts'
import { type Server, serve, sluice, temporary } from './process.ts'

const GUIDES = join(ROOT, 'docs/guides')
const PROGRAMS = {
  node: 'worker.ts',
  express: 'server.ts',
  fastify: 'server.ts',
  hono: 'server.ts',
  nextjs: 'app/api/chat/route.ts',
  'ai-sdk': 'server.ts',
  openai: 'ask.ts',
} as const
type Name = keyof typeof PROGRAMS
const NAMES = Object.keys(PROGRAMS) as Name[]
const FRAMEWORKS = [
  'express',
  'fastify',
  'hono',
  '@hono/node-server',
  'next',
  'ai',
  '@ai-sdk/openai',
  'openai',
]

const guide = (name: string) => readFileSync(join(GUIDES, `${name}.md`), 'utf8')
const program = (name: Name) => readFileSync(join(ROOT, 'examples', name, PROGRAMS[name]), 'utf8')

describe('a guide', () => {
  for (const name of NAMES) {
    test(`for ${name} has its program as the file has it`, () => {
      assert.ok(guide(name).includes(`\`\`\`ts\n${program(name)}\`\`\`\n`))
    })
  }
  test('shows the policy that its program runs on, as the file has it', () => {
    const policy = readFileSync(join(ROOT, 'examples/chat.yaml'), 'utf8')
    assert.ok(guide('README').includes(`\`\`\`yaml\n${policy}\`\`\`\n`))
  })
  test('stands in the index, and its links lead somewhere', () => {
    const pages = readdirSync(GUIDES)
    for (const page of pages) {
      if (page !== 'README.md') assert.ok(guide('README').includes(`](${page})`), page)
      for (const [, link = ''] of readFileSync(join(GUIDES, page), 'utf8').matchAll(/\]\(([^)#]+)[^)]*\)/g))
        assert.ok(existsSync(join(GUIDES, link)), `${page}: ${link}`)
    }
    assert.ok(NAMES.every((name) => pages.includes(`${name}.md`)))
    for (const readme of ['README.md', 'client/README.md'])
      assert.match(readFileSync(join(ROOT, readme), 'utf8'), /\]\((\.\.\/)?docs\/guides\/README\.md\)/)
  })
})

test('the steps before the start lead to an account that has paid, and a key for the program', async () => {
  const { folder, remove } = temporary()
  const store = { SLUICE_STORE: `sqlite:${join(folder, 'sluice.db')}` }
  const lines = [...guide('README').matchAll(/^npx sluice (.*)$/gm)].map(([, line = '']) => line.split(' '))
  const secrets: string[] = []
  let server: Server | undefined
  for (const [command = '', ...args] of lines) {
    if (command === 'serve') server = await serve(args, store)
    else {
      const url = server === undefined ? store : { SLUICE_URL: server.url, SLUICE_KEY: secrets[0] ?? '' }
      const { code, stdout, stderr } = await sluice([command, ...args], url)
      assert.equal(code, 0, stderr)
      if (command === 'key') secrets.push(stdout.trim())
    }
  }
  const url = server?.url as string
  const app = createClient({ url, key: secrets[1] ?? '', deadlineMs: 60_000 })
  const { outcome, from } = await app.reserve({ request_id: 'r', account: 'acme', feature: 'chat' })
  assert.deepEqual([outcome, from], ['allow', [{ source: 'grant:order-1', amount: '0.5' }]])
  await app.close()
  await server?.stop()
  remove()
})

let guest: Guest
let scene: Scene
let api: OpenAIApi
/** A key that may ask and meter, and nothing else. */
let key: string
const running: ChildProcess[] = []
before(async () => {
  guest = await installPacked('client', CLIENT_NEEDS)
  for (const name of [...FRAMEWORKS, '@types']) {
    const link = join(guest.folder, 'node_modules', name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(ROOT, 'node_modules', name), link, 'junction')
  }
  for (const name of NAMES)
    cpSync(join(ROOT, 'examples', name), join(guest.folder, name), { recursive: true })
  // What Next.js does with a route handler, on the smallest server that has standard requests.
  guest.write(
    'nextjs/server.ts',
    `import { serve } from '@hono/node-server'
     import { NextRequest } from 'next/server.js'
     import { POST } from './app/api/chat/route.ts'
     serve({
       port: Number(process.env.PORT),
       async fetch({ url, headers, body, signal }: Request) {
         return POST(new NextRequest(url, { method: 'POST', headers, body, signal, duplex: 'half' }))
       },
     })`,
  )
  scene = await openScene(join(ROOT, 'examples/chat.yaml'))
  api = await startOpenAI()
  const made = await scene.server.call('POST', '/v1/keys', { id: 'guides', role: 'meter' })
  key = (made.body as { readonly secret: string }).secret
})
after(async () => {
  await Promise.all(running.map(stopped))
  api?.close()
  await scene?.close()
  guest?.remove()
})

async function stopped(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

function start(name: Name, args: readonly string[] = [], port = 0, file: string = PROGRAMS[name]) {
  const child = spawn(process.execPath, [file, ...args], {
    cwd: join(guest.folder, name),
    env: {
      ...process.env,
      ...{ PORT: String(port), SLUICE_URL: scene.url, SLUICE_KEY: key },
      ...{ OPENAI_BASE_URL: api.url, OPENAI_API_KEY: 'k' },
    },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  running.push(child)
  return child
}

/** Tries until there is an answer: the programs give Sluice 250 ms, which a machine that is busy may not keep. */
async function eventually<T>(attempt: (count: number) => Promise<T | undefined>): Promise<T> {
  for (let count = 0; count < 1_000; count++) {
    const answer = await attempt(count)
    if (answer !== undefined) return answer
    await pause(50)
  }
  throw new Error('it has not come about, however often it was tried')
}

/** What an account's requests were charged, by the story of each. */
async function chargesOf(account: string): Promise<readonly string[]> {
  const { body } = await scene.server.call('GET', `/v1/accounts/${account}/entries`)
  const entries = (body as { readonly items: readonly { readonly request?: string }[] }).items
  const ids = new Set(entries.flatMap(({ request }) => request ?? []))
  const stories = await Promise.all([...ids].map((id) => scene.client().explain(account, id)))
  return stories.map(({ charged }) => charged).filter((charged) => charged !== '0')
}

/** The charges of an account when there are so many and nothing is held any more; its balance has to say the same. */
async function settled(account: string, count: number): Promise<readonly string[]> {
  const charges = await eventually(async () => {
    const found = await chargesOf(account)
    const { credits } = await scene.client().account(account)
    return found.length >= count && credits.held === '0' ? found : undefined
  })
  const { credits } = await scene.client().account(account)
  const micros = (amount: string) => Math.round(Number(amount) * 1e6)
  const spent = charges.reduce((sum, charged) => sum + micros(charged), 0)
  assert.equal(micros(credits.available), CREDITS * 1e6 - spent)
  return charges
}

const CREDITS = 100
const PROMPT = 'one two three'
/** By its prompt's letters and three words that came back. */
const COST = '0.025'

test('the programs are right for the compiler, with the packages that they name', async () => {
  const options = { target: 'esnext', lib: ['esnext'], types: ['node'], skipLibCheck: true }
  const { nextjs, ...others } = PROGRAMS
  guest.write(
    'all.ts',
    Object.entries(others)
      .map(([name, file]) => `import './${name}/${file}'\n`)
      .join(''),
  )
  assert.equal(await guest.check('all.ts', { ...options, allowImportingTsExtensions: true }), '')
  const bundled = { module: 'esnext', moduleResolution: 'bundler', jsx: 'preserve' }
  assert.equal(await guest.check(`nextjs/${nextjs}`, { ...options, ...bundled }), '')
})

/** The servers, by name: where they listen, and what they ask at which address. */
const SERVERS = {
  express: { path: '/chat', prompt: PROMPT, charges: [COST], file: undefined },
  fastify: { path: '/chat', prompt: PROMPT, charges: [COST], file: undefined },
  hono: { path: '/chat', prompt: PROMPT, charges: [COST], file: undefined },
  nextjs: { path: '/api/chat', prompt: PROMPT, charges: [COST], file: 'server.ts' },
  // Two calls of the model: the first calls a tool.
  'ai-sdk': {
    path: '/ask',
    prompt: 'What is the weather in Bonn?',
    charges: ['0.092', '0.092'],
    file: undefined,
  },
} as const

interface Problem {
  readonly [name: string]: unknown
  readonly outcome: string
}

describe('a server of a guide', { timeout: 280_000 }, () => {
  const urls = new Map<string, string>()
  const names = Object.keys(SERVERS) as (keyof typeof SERVERS)[]
  const ask = (name: keyof typeof SERVERS, account?: string): Promise<Response> =>
    fetch(`${urls.get(name)}${SERVERS[name].path}`, {
      method: 'POST',
      body: SERVERS[name].prompt,
      headers: { 'content-type': 'text/plain', ...(account !== undefined && { 'x-account': account }) },
    })
  before(async () => {
    for (const name of names) {
      const port = await freePort()
      urls.set(name, `http://127.0.0.1:${port}`)
      const child = start(name, [], port, SERVERS[name].file)
      await eventually(async () => {
        assert.equal(child.exitCode, null, `${name} has ended`)
        return fetch(urls.get(name) as string).catch(() => undefined)
      })
    }
  })

  for (const name of names) {
    const { charges } = SERVERS[name]
    test(`${name}: who may is answered, and charged what was used`, async () => {
      const account = await eventually(async (count) => {
        const account = `${name}-${count}`
        await scene.account(account, String(CREDITS), 'paid')
        const response = await ask(name, account)
        const text = await response.text()
        if (response.status === 503) return undefined
        assert.equal(response.status, 200, text)
        assert.equal(text.trim(), name === 'ai-sdk' ? 'hello' : PROMPT)
        // The AI SDK has the decision, not its caller's response.
        if (name === 'ai-sdk') return account
        const limits = response.headers.get('ratelimit')
        if (limits !== null) assert.match(limits, /^"purchased";r=\d+$/)
        return limits === null ? undefined : account
      })
      assert.deepEqual(await settled(account, charges.length), charges)
    })

    test(`${name}: who may not is told why, and when`, async () => {
      const waits = await eventually(async () => {
        const response = await ask(name)
        assert.notEqual(response.status, 500)
        return response.status === 429 ? response : void (await response.arrayBuffer())
      })
      assert.match(waits.headers.get('content-type') ?? '', /^application\/problem\+json/)
      assert.match(waits.headers.get('retry-after') ?? '', /^[1-9]\d*$/)
      assert.match(waits.headers.get('ratelimit') ?? '', /"pace";r=0/)
      expectShown(name, (await waits.json()) as Problem)

      await scene.account(`${name}-poor`, '0.01', 'paid')
      const denied = await eventually(async () => {
        const response = await ask(name, `${name}-poor`)
        return response.status === 503 ? void (await response.arrayBuffer()) : response
      })
      assert.deepEqual([denied.status, denied.headers.get('retry-after')], [429, null])
      const { code, outcome, request_id } = (await denied.json()) as Problem
      assert.deepEqual([code, outcome], ['credits_short', 'deny'])
      const { refusals } = await scene.client().explain(`${name}-poor`, String(request_id))
      assert.equal(refusals[0]?.reason, 'credits_short')
    })
  }

  test('ai-sdk: a stream is charged what it used, and a refusal is a part of it', async () => {
    const chat = (account: string) =>
      fetch(`${urls.get('ai-sdk')}/chat`, { method: 'POST', body: 'hi', headers: { 'x-account': account } })
    const account = await eventually(async (count) => {
      const account = `stream-${count}`
      await scene.account(account, String(CREDITS), 'paid')
      const text = await (await chat(account)).text()
      return text.includes('"type":"error"') ? undefined : account
    })
    assert.deepEqual(await settled(account, 1), ['0.092'])
    const refused = await eventually(async () => {
      const text = await (await chat('ai-sdk-poor')).text()
      return text.includes('unavailable') ? undefined : text
    })
    assert.match(refused, /"type":"error","errorText":"credits_short"/)
  })

  test('without Sluice: nobody may, except where the guide lets each account go on for a while', async () => {
    await scene.account('away', String(CREDITS), 'paid')
    await scene.kill()
    for (const name of names) {
      const response = await ask(name, 'away')
      const said = await response.text()
      if (name === 'express') {
        assert.deepEqual([response.status, said.trim()], [200, PROMPT])
        assert.equal(response.headers.get('ratelimit'), null)
      } else {
        assert.equal(response.status, 503, name)
        assert.equal(JSON.parse(said).code, 'unavailable')
      }
    }
    await scene.restart()
    assert.deepEqual(await settled('away', 1), [COST])
  })
})

/** A guide shows a problem whose waiting time and request id are of some other moment. */
function expectShown(name: string, seen: Problem): void {
  const shown = /```json\n([\s\S]*?)```/.exec(guide('README'))?.[1] ?? '{}'
  const still = ({ retry_after_ms, request_id, unblock, ...rest }: Problem) => [
    [typeof retry_after_ms, typeof request_id, Object.keys(unblock as object)],
    rest,
  ]
  assert.deepEqual(still(seen), still(JSON.parse(shown)), name)
}

describe('the worker of the guide for Node', { timeout: 280_000 }, () => {
  let child: ChildProcess
  let lines: AsyncIterator<string>
  before(() => {
    child = start('node')
    lines = (createInterface({ input: child.stdout as NodeJS.ReadableStream }) as Interface)[
      Symbol.asyncIterator
    ]()
  })
  async function job(line: string): Promise<string> {
    child.stdin?.write(`${line}\n`)
    return (await lines.next()).value
  }

  test('says what was charged, and why not', async () => {
    const account = await eventually(async (count) => {
      const account = `node-${count}`
      await scene.account(account, String(CREDITS), 'paid')
      const said = await job(`${account} ${PROMPT}`)
      return said.startsWith(`${account}: ${PROMPT} (`) && said.endsWith(': 0.015 CU)') ? account : undefined
    })
    assert.deepEqual(await settled(account, 1), ['0.015'])
    await eventually(async () =>
      (await job(`guest ${PROMPT}`)).startsWith('rate_full: try again in ') ? true : undefined,
    )
    await scene.account('node-poor', '0.01', 'paid')
    const poor = await eventually(async () => {
      const said = await job('node-poor hi')
      return said.includes('away') ? undefined : said
    })
    assert.match(poor, /^credits_short: 0\.\d+ CU more would do$/)
  })

  test('goes on without Sluice as far as it says, and tells of it afterwards', async () => {
    await scene.account('node-away', String(CREDITS), 'paid')
    await scene.kill()
    assert.match(await job(`node-away ${PROMPT}`), /^node-away: one two three \(.*: charged later\)$/)
    const words = 'word '.repeat(120).trim()
    assert.match(await job(`node-away ${words}`), /away/)
    await scene.restart()
    assert.deepEqual(await settled('node-away', 1), ['0.015'])
  })

  test('ends when its jobs end', async () => {
    const ended = once(child, 'exit')
    child.stdin?.end()
    assert.deepEqual(await ended, [0, null])
  })
})

describe('the program of the guide for the package openai', { timeout: 280_000 }, () => {
  async function ask(account: string): Promise<readonly string[] | undefined> {
    const child = start('openai', [account, 'hi'])
    const ended = once(child, 'exit')
    const said = ((await child.stdout?.toArray()) ?? []).join('').trim()
    const [code] = await ended
    return code === 0 ? said.split('\n') : undefined
  }
  test('is charged for both of its answers', async () => {
    const account = await eventually(async (count) => {
      const account = `openai-${count}`
      await scene.account(account, String(CREDITS), 'paid')
      const said = await ask(account)
      if (said !== undefined) assert.deepEqual(said, ['hello', 'word'.repeat(5)])
      return said && account
    })
    assert.deepEqual(await settled(account, 2), ['0.092', '0.092'])
  })
  test('says why not, without asking the API', async () => {
    await scene.account('openai-poor', '0.01', 'paid')
    api.asked.length = 0
    assert.deepEqual(await eventually(() => ask('openai-poor')), ['refused: credits_short'])
    assert.deepEqual(api.asked, [])
  })
})
