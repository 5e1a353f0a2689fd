/** docs/reference/gateway.md, held to what the code does. */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { configSchema, readConfig } from './config.ts'
import type { Endpoint, Json, Provider } from './provider.ts'
import { PROVIDERS } from './providers.ts'

const page = readFileSync(new URL('../../docs/reference/gateway.md', import.meta.url), 'utf8')
const words = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, word]) => word as string)
/** All that stands in code outside of the example, and the names of fields in it. */
const known = new Set(
  words(page.replace(/```.*?```/gs, '')).flatMap((word) => [
    word,
    ...[...word.matchAll(/([a-z_]+): /g)].map(([, name]) => name as string),
  ]),
)
const section = (title: string): string => page.split(`## ${title}\n`)[1]?.split(/\n## /)[0] ?? ''
const rows = (title: string): string[][] =>
  section(title)
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.slice(2, -1).split(' | '))

test('it has every field of the configuration', () => {
  const missing = fieldsOf(configSchema).filter((field) => !known.has(field))
  assert.deepEqual(missing, [])
})

test('its tables of the configuration have no field that is none', () => {
  const fields = new Set(fieldsOf(configSchema))
  const named = [...rows('Configuration'), ...rows('Any other path')]
    .flatMap(([first = '']) => words(first))
    .filter((word) => !word.startsWith('{'))
  assert.deepEqual(
    named.filter((word) => !fields.has(word)),
    [],
  )
})

test('its example is a configuration', () => {
  const [, example = ''] = /```yaml\n(.*?)```/s.exec(page) ?? []
  const env = { OPENAI_API_KEY: 'a', SPARE_KEY: 'b', ANTHROPIC_API_KEY: 'c' }
  assert.equal(readConfig(example, env).upstreams.size, 3)
})

test('it has every endpoint of every provider', () => {
  const told = rows('Endpoints').map(([name = '', path = '']) => `${words(name)[0]} ${words(path)[0]}`)
  const all = Object.values(PROVIDERS).flatMap(({ endpoints }) =>
    endpoints.map(({ name, method, path }) => `${name} ${method} ${path}`),
  )
  assert.deepEqual(told.toSorted(), [...new Set(all)].toSorted())
})

const chat = { model: 'm', messages: [] }
const tokens = {
  input_tokens: 9,
  output_tokens: 1,
  input_tokens_details: { cached_tokens: 2, image_tokens: 3 },
}
const sound = { model: 'm', file: { size: 1 } }
/** A call of each endpoint, and all that its answers may tell. */
const SAMPLES: Readonly<Record<string, readonly [body: Json, ...answers: Json[]]>> = {
  'chat.completions': [chat, { usage: tokens }],
  responses: [{ model: 'm', input: 'a' }, { usage: tokens }],
  completions: [{ model: 'm', prompt: 'a' }, { usage: tokens }],
  embeddings: [{ model: 'm', input: 'a' }, { usage: { prompt_tokens: 6 } }],
  'images.generations': [{ model: 'm' }, { data: [{}], usage: tokens }],
  'images.edits': [{ model: 'm' }, { data: [{}], usage: tokens }],
  'audio.speech': [{ model: 'm', input: 'a' }],
  'audio.transcriptions': [sound, { usage: { type: 'duration', seconds: 1 } }, { usage: tokens }],
  'audio.translations': [sound, { duration: 1 }],
  messages: [{ ...chat, max_tokens: 1 }, { usage: tokens }],
}

function quantitiesOf({ name, meter }: Endpoint): string[] {
  const [body, ...answers] = SAMPLES[name] ?? assert.fail(`no sample of ${name}`)
  const asked = meter?.read(body)
  const streamed = meter
    ?.stream?.(body)
    .see(undefined, JSON.stringify({ type: 'speech.audio.done', usage: tokens }))
  const all = [
    ...(asked?.input === undefined ? [] : ['input_tokens']),
    ...(asked?.grows === undefined ? [] : [asked.grows]),
    ...Object.keys({ ...asked?.certain, ...asked?.guessed }),
    ...answers.flatMap((answer) => Object.keys(meter?.usage(answer, body) ?? {})),
    ...(name === 'audio.speech' ? Object.keys(streamed?.usage ?? {}) : []),
  ]
  return (
    [...new Set(all)]
      // A sample tells of pictures and sound alike; which of them an endpoint takes is its own.
      .filter((quantity) => !(quantity === 'image_input_tokens' && name.startsWith('audio')))
      .toSorted()
  )
}

test('it has the quantities and attributes of each', () => {
  const told = new Map(rows('Endpoints').map(([, path = '', ...more]) => [words(path)[0], more]))
  for (const { endpoints, jobs } of Object.values(PROVIDERS as Readonly<Record<string, Provider>>))
    for (const endpoint of endpoints) {
      const [quantities = '', attributes = ''] = told.get(`${endpoint.method} ${endpoint.path}`) ?? []
      const order = (['create', 'remix', 'edit', 'extend'] as const).find((one) => one === endpoint.job)
      if (jobs !== undefined && order !== undefined) {
        const ordered = jobs.read({ seconds: '4' }, order === 'create' ? undefined : {}, order)
        assert.deepEqual(words(quantities), Object.keys(ordered.quantities), endpoint.name)
        assert.deepEqual(words(attributes), Object.keys(ordered.attributes), endpoint.name)
        continue
      }
      if (endpoint.meter === undefined) {
        assert.match(quantities, /costs nothing/, endpoint.name)
        continue
      }
      assert.deepEqual(words(quantities).toSorted(), quantitiesOf(endpoint), endpoint.name)
      const [body = {}] = SAMPLES[endpoint.name] ?? []
      assert.deepEqual(words(attributes), Object.keys(endpoint.meter.read(body).attributes), endpoint.name)
    }
})

test('it has every code and header field that the gateway makes up', () => {
  const sources = globSync('**/*.ts', { cwd: import.meta.dirname })
    .filter((path) => !path.endsWith('.test.ts'))
    .map((path) => readFileSync(join(import.meta.dirname, path), 'utf8'))
    .join('\n')
  const codes = [
    ...sources.matchAll(/\b(?:badRequest|badUpstream)\(\s*'([a-z_]+)'/g),
    ...sources.matchAll(/'(upstream_[a-z]+)'/g),
  ].map(([, code]) => code as string)
  assert.ok(codes.length > 5)
  assert.deepEqual(
    [...new Set(codes)].filter((code) => !known.has(code)),
    [],
  )
  const fields = [...sources.matchAll(/'(x-sluice-[a-z-]*[a-z]|x-should-retry|retry-after-ms)'/g)].map(
    ([, name]) => name as string,
  )
  assert.deepEqual(
    [...new Set(fields)].filter((name) => !known.has(name)),
    [],
  )
})

function fieldsOf(schema: unknown): string[] {
  const fields = new Set<string>()
  const collect = (inner: unknown): void => {
    if (typeof inner !== 'object' || inner === null) return
    if ('properties' in inner && typeof inner.properties === 'object' && inner.properties !== null)
      for (const name of Object.keys(inner.properties)) fields.add(name)
    for (const one of Object.values(inner)) collect(one)
  }
  collect(schema)
  return [...fields]
}
