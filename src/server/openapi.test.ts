// The contract is complete: every call, every error, every name, each with an example that fits.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Check, type XSchema } from 'typebox/schema'
import { ERRORS } from '../errors.ts'
import { memoryStore } from '../store/memory.ts'
import { createWorld, type World } from './fixtures/world.ts'

interface Media {
  readonly schema: object
  readonly examples?: Readonly<Record<string, { readonly value?: unknown; readonly $ref?: string }>>
}
interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly tags: readonly string[]
  readonly security?: readonly []
  readonly parameters: readonly {
    readonly name: string
    readonly in: string
    readonly example?: string
    readonly schema: object
  }[]
  readonly requestBody?: { readonly content: Readonly<Record<string, Media>> }
  readonly responses: Readonly<Record<string, { readonly content: Readonly<Record<string, Media>> }>>
}

let world: World
let contract: {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: {
    readonly schemas: object
    readonly examples: Readonly<Record<string, { readonly value: unknown }>>
  }
  readonly tags: readonly { readonly name: string }[]
}
let calls: readonly (readonly [path: string, method: string, Operation])[]
before(async () => {
  world = await createWorld({ storeOf: (now) => memoryStore({ now }) })
  contract = (await world.get('/openapi.json')).body
  calls = Object.entries(contract.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => [path, method, operation] as const),
  )
})
after(() => world.close())

const fits = (schema: object, value: unknown): boolean =>
  Check({ ...schema, components: contract.components } as XSchema, value)
/** And one that has no end. */
const SHOW_THEMSELVES = ['metrics', 'contract', 'watchAccount']

test('it is OpenAPI 3.1, and every reference in it leads somewhere', () => {
  assert.equal(contract.openapi, '3.1.0')
  JSON.stringify(contract, (name, value) => {
    if (name !== '$ref') return value
    assert.match(value, /^#\//)
    const found = value
      .slice(2)
      .split('/')
      .reduce(
        (at: Record<string, unknown> | undefined, part: string) => at?.[part] as never,
        contract as never,
      )
    assert.ok(found, value)
    return value
  })
})

test('every call has a name of its own, a summary, a tag that is told, and 200', () => {
  const names = calls.map(([, , { operationId }]) => operationId)
  assert.equal(new Set(names).size, names.length)
  for (const [path, , operation] of calls) {
    assert.ok(operation.summary && operation.responses[200], path)
    for (const tag of operation.tags) assert.ok(contract.tags.some(({ name }) => name === tag))
    const inPath = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1])
    assert.deepEqual(
      operation.parameters.filter((parameter) => parameter.in === 'path').map(({ name }) => name),
      inPath,
      path,
    )
  }
})

test('every call has an example, of what is asked and of what is answered, that has the declared shape', () => {
  for (const [path, , { operationId, requestBody, responses, parameters }] of calls) {
    if (SHOW_THEMSELVES.includes(operationId)) continue
    for (const { name, schema, example, in: where } of parameters) {
      if (where === 'path') assert.ok(example, `${operationId}: ${name}`)
      if (example !== undefined) assert.ok(fits(schema, example), `${path}: ${name} is ${example}`)
    }
    for (const media of [
      ...Object.values(requestBody?.content ?? {}),
      ...Object.values(responses[200]?.content ?? {}),
    ]) {
      const examples = Object.values(media.examples ?? {})
      assert.ok(examples.length > 0, operationId)
      for (const { value } of examples)
        assert.ok(fits(media.schema, value), `${operationId}: ${JSON.stringify(value)}`)
    }
  }
})

test('every error has an example, and stands with some call; a call tells every error under its status', () => {
  assert.deepEqual(Object.keys(contract.components.examples), Object.keys(ERRORS))
  const told = new Set<string>()
  for (const [path, , { responses }] of calls) {
    for (const [status, { content }] of Object.entries(responses)) {
      for (const code of Object.keys(content['application/problem+json']?.examples ?? {})) {
        told.add(code)
        assert.equal(ERRORS[code as keyof typeof ERRORS].status, Number(status), path)
      }
    }
  }
  assert.deepEqual(
    Object.keys(ERRORS).filter((code) => !told.has(code)),
    [],
  )
  const problem = { $ref: '#/components/schemas/Problem' }
  for (const { value } of Object.values(contract.components.examples)) assert.ok(fits(problem, value))
})

test('the address in a problem’s `type` leads to its example', async () => {
  const { body } = await world.get('/v1/accounts/nobody')
  assert.equal(body.type, '/openapi.json#/components/examples/account_unknown')
  assert.ok(contract.components.examples.account_unknown)
})

test('what needs no key says so, and the rest needs one', () => {
  const open = calls.filter(([, , { security }]) => security !== undefined).map(([path]) => path)
  assert.deepEqual(open, ['/healthz', '/readyz', '/openapi.json'])
})
