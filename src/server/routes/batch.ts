/**
 * Many operations in one call. Each stands alone: its own shape, its own answer, its own status. The engine keeps the
 * order in which one account's operations arrive, so handing them over one after the other, without waiting, is enough.
 */

import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import type { Engine } from '../../engine.ts'
import { SluiceError } from '../../errors.ts'
import type { Key } from '../../keyring.ts'
import type { ChargeAnswer, DecisionAnswer, Operation, Problem, ReleaseAnswer } from '../../wire.ts'
import { type App, type Door, METER } from '../door.ts'
import { asSluiceError, problemOf, refusedByShape } from '../problem.ts'
import { BatchAnswer } from '../schemas/answers.ts'
import { OPERATIONS } from '../schemas/requests.ts'
import { ref } from '../schemas/shapes.ts'
import { extend, reserve } from './decisions.ts'
import { record, release, settle } from './metering.ts'

export const MAX_OPERATIONS = 256
const BODY_LIMIT = 4 * 1024 * 1024

type Answer = DecisionAnswer | ChargeAnswer | ReleaseAnswer
interface Result {
  readonly status: number
  readonly body: Answer | Problem
}

const WHAT = `An array of at most ${MAX_OPERATIONS} operations`
const SHAPES = {
  reserve: ref(OPERATIONS.reserve),
  extend: ref(OPERATIONS.extend),
  settle: ref(OPERATIONS.settle),
  release: ref(OPERATIONS.release),
  record: ref(OPERATIONS.record),
} as const

/** What the contract tells of the body. */
const Frame = Type.Object(
  {
    operations: Type.Array(
      Type.Unsafe<Readonly<Record<string, unknown>>>({
        description: 'An operation: an object with `op` and the body of that call',
        oneOf: Object.values(SHAPES),
      }),
      { maxItems: MAX_OPERATIONS, description: WHAT },
    ),
  },
  { additionalProperties: false },
)
/** What is checked first: each operation is held against its own shape, so that a bad one spoils only itself. */
const FrameAlone = Type.Object(
  { operations: Type.Array(Type.Unknown(), { maxItems: MAX_OPERATIONS, description: WHAT }) },
  { additionalProperties: false },
)

export function batch(app: App, door: Door): void {
  app.post(
    '/v1/batch',
    {
      bodyLimit: BODY_LIMIT,
      schema: { body: FrameAlone, response: { 200: ref(BatchAnswer) } },
      config: {
        call: {
          id: 'batch',
          tag: 'meter',
          says: 'Many operations in order; each stands alone',
          roles: METER,
          scope: 'subject',
          errors: [],
        },
        body: Frame,
      },
    },
    async (request) => {
      const { operations } = request.body
      request.tale.operations = operations.length
      return { results: await runAll(door, request, operations) }
    },
  )
}

function runAll(door: Door, request: FastifyRequest, operations: readonly unknown[]): Promise<Result[]> {
  return Promise.all(operations.map((operation) => runAlone(door, request, operation)))
}

async function runAlone(door: Door, request: FastifyRequest, operation: unknown): Promise<Result> {
  try {
    return { status: 200, body: await run(door.engine, request.key, shaped(request, operation)) }
  } catch (thrown) {
    const error = asSluiceError(thrown)
    if (error.code === 'internal')
      door.log?.error({ id: request.id, err: error.detail.cause ?? error }, 'failed')
    return { status: error.status, body: problemOf(error) }
  }
}

function shaped(request: FastifyRequest, operation: unknown): Operation {
  const op =
    typeof operation === 'object' && operation !== null && 'op' in operation ? operation.op : undefined
  if (typeof op !== 'string' || !Object.hasOwn(SHAPES, op)) {
    throw new SluiceError(
      'invalid',
      op === undefined ? '"op" is missing.' : '"op" is none that is known here.',
      {
        path: '/op',
        remedy: `Give one of ${Object.keys(SHAPES).join(', ')}.`,
      },
    )
  }
  const schema = SHAPES[op as keyof typeof SHAPES]
  const fits = request.getValidationFunction(schema) ?? request.compileValidationSchema(schema)
  if (fits(operation)) return operation as Operation
  const refusal = (fits as unknown as { errors: Parameters<typeof refusedByShape>[0][] }).errors[0]
  throw refusal === undefined
    ? new SluiceError('invalid', 'The operation is not valid.')
    : refusedByShape(refusal)
}

function run(engine: Engine, key: Key, operation: Operation): Promise<Answer> {
  switch (operation.op) {
    case 'reserve': {
      const { op, ...body } = operation
      return reserve(engine, key, body)
    }
    case 'extend': {
      const { op, ...body } = operation
      return extend(engine, key, body)
    }
    case 'settle': {
      const { op, ...body } = operation
      return settle(engine, key, body)
    }
    case 'release': {
      const { op, ...body } = operation
      return release(engine, key, body)
    }
    case 'record': {
      const { op, ...body } = operation
      return record(engine, key, body)
    }
  }
}
