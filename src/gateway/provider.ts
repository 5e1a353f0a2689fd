/** What the gateway knows of a provider's wire format. Each provider is one value in `providers/`. */
import type { Quantities, QuantitiesIn } from '../wire.ts'

export type Json = Readonly<Record<string, unknown>>

export interface Provider {
  readonly name: string
  readonly endpoints: readonly Endpoint[]
  /** Where some of them are about jobs. */
  readonly jobs?: Jobs
  /** Words with which paths begin, behind `/v1`, below which it keeps things for everybody who has its key. */
  readonly keeps: readonly string[]
  /** Where a caller may put a key instead of `Authorization`, in lower case. */
  readonly keyHeader?: string
  /** Whether a call that other providers know as well is this one's. */
  isOwn?(headers: Readonly<Record<string, unknown>>): boolean
  /** The header fields that authorize the gateway at an upstream. */
  authorize(key: string): Readonly<Record<string, string>>
  /** A refusal or a failure as this provider's own clients understand it. */
  failure(failure: Failure): Json
  /** The same inside a stream that has begun: whole frames. */
  failureInStream(failure: Failure): string
}

/** Why a caller gets no answer, before it takes a provider's shape. */
export interface Failure {
  readonly status: number
  /** One of Sluice's reasons or error codes, or one of the gateway's own (docs/reference/gateway.md). */
  readonly code: string
  readonly message: string
  readonly kind: FailureKind
  /** What would unblock it, where Sluice knows. */
  readonly unblock?: unknown
  /** In which field of the body, where it is about one. */
  readonly path?: string
}
export type FailureKind =
  | 'invalid'
  | 'unauthorized'
  | 'forbidden'
  | 'not_found'
  | 'too_big'
  /** More is allowed later: clients may try again by themselves. */
  | 'wait'
  /** Trying again changes nothing before somebody acts. */
  | 'spent'
  | 'upstream'
  | 'overloaded'

export interface Endpoint {
  /** As entries of usage and rules of the configuration name it: `chat.completions`. */
  readonly name: string
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** A path pattern: `/v1/videos/:id`. */
  readonly path: string
  /** Absent: it passes unmetered. */
  readonly meter?: Meter
  /** What its calls bring: JSON where it says nothing, `form` for fields and files, `any` for what nobody looks into. */
  readonly takes?: 'json' | 'form' | 'any'
  /** In its place, where the call is about work that goes on after its answer. */
  readonly job?: JobCall
  /** Where its calls or answers name what the provider keeps. */
  readonly kept?: Kept
}

/** What calls and answers say of what a provider keeps under ids of its own. All of it is pure. */
export interface Kept {
  /**
   * The body with ids as the upstream knows them. `open` answers undefined for what this caller was not given. Throws `UnknownId`
   * where the call cannot do without, and `BadBody`.
   */
  ask?(body: Json, open: (id: string) => string | undefined): Json
  /** Where a body names what is bound to no caller, as a JSON pointer. */
  names?(body: Json): string | undefined
  /** What an answer or an event says, with ids as the caller is to know them. Absent: there are none in it. */
  tell?(said: Json, seal: (id: string) => string): Json
}

/** The first four order one: anew, or from one that is there, which the path names for `remix` and the body for the others. */
export type JobCall = JobOrder | 'look' | 'list' | 'content' | 'remove'
export type JobOrder = 'create' | 'remix' | 'edit' | 'extend'

/** How work is told that is ordered by one call and asked for by others. All of it is pure. */
export interface Jobs {
  /** Where an upstream has them: what is asked for one is `<path>/<id>`. */
  readonly path: string
  /** How the ids begin that callers see. */
  readonly prefix: string
  /** What is ordered, from the fields of a body; `source` is the finished job that it goes on from. Throws `BadBody`. */
  read(fields: Json, source: Json | undefined, order: JobOrder): JobAsked
  /** Which job a body goes on from. Throws `BadBody`. */
  sourceIn(fields: Json): string
  /** The same fields with another one. */
  withSource(fields: Json, id: string): Json
  /** What an upstream tells of a job; undefined where it is no job that can be believed. */
  see(answer: Json): JobSeen | undefined
  /** The same for the caller: with the ids that it knows. */
  show(answer: Json, ids: JobIds): Json
  list(jobs: readonly Json[], hasMore: boolean): Json
  removed(id: string): Json
}
export interface JobAsked {
  readonly model: string
  readonly quantities: Quantities
  /** What a rate card may ask beside the model. */
  readonly attributes: Readonly<Record<string, string>>
  /** Charged as ordered: what is told of how much was made counts what it was made from as well. */
  readonly isToldInAll?: true
}
export interface JobIds {
  /** As the upstream calls it, and as the caller does. */
  readonly upstream: string
  readonly id: string
  /** The job that it was made from, as the caller calls it. */
  readonly source: string | undefined
}
export interface JobSeen {
  readonly id: string
  readonly state: 'runs' | 'done' | 'failed'
  /** As far as it tells what was made. */
  readonly quantities: Quantities
  readonly attributes: Readonly<Record<string, string>>
  /** Why it failed. */
  readonly reason: string
}

/** How the calls of an endpoint are measured. All of it is pure. */
export interface Meter {
  /** What a call needs, from its body. Throws `BadBody`. */
  read(body: Json): Asked
  /**
   * The body that goes upstream: it asks for usage where that has to be asked for, and stays within what was granted. Of a form
   * only its model is replaced.
   */
  write(body: Json, granted: Granted): Json
  /** What a whole answer says was used; undefined where it says nothing that can be believed. */
  usage(answer: Json, body: Json): Quantities | undefined
  /** The text that an answer brought, for counting where it tells no usage; absent where there is none to count. */
  textOf?(answer: Json): string
  /** How its streams are read; absent where it has none. */
  stream?(body: Json): StreamReader
  /** Its whole answers need not be JSON: sound, or text. */
  readonly answersAny?: true
}

export class BadBody extends Error {
  override readonly name = 'BadBody'
  /** As a JSON pointer. */
  readonly path: string
  constructor(path: string, message: string) {
    super(message)
    this.path = path
  }
}

/** It names something that is not there, or not this caller's: both are answered alike. */
export class UnknownId extends Error {
  override readonly name = 'UnknownId'
  /** Where in the body, as a JSON pointer; empty where it is in the path. */
  readonly path: string
  constructor(path: string, id: string) {
    super(`nothing with the id '${id.slice(0, 256)}' was found`)
    this.path = path
  }
}

export interface Asked {
  readonly model: string | undefined
  readonly stream: boolean
  /** Text that is read, for the estimate and for counting; undefined where input is not counted in tokens. */
  readonly input: string | undefined
  /** The most that the caller wants, where it says so, by quantity: `{ output_tokens: 500 }`. */
  readonly bound: QuantitiesIn
  /** How many answers share the bound: each needs some of it. One where it says nothing. */
  readonly choices?: number
  /** What is certain before it runs: `{ images: 2 }`. Input tokens are counted from `input`. */
  readonly certain: QuantitiesIn
  /** What is held and, where no answer tells, charged as estimated. */
  readonly guessed?: QuantitiesIn
  /** What it costs, where that is fixed; then nothing is counted. */
  readonly cost?: string
  /** What a rate card may ask beside the model: `{ size: '1024x1024' }`. */
  readonly attributes: Readonly<Record<string, string>>
  /** The quantity that may be cut where less is granted, and whether an unbounded call needs one. */
  readonly grows: 'output_tokens' | undefined
}

export interface Granted {
  readonly model: string | undefined
  /** The bound to lay into the body; undefined leaves the caller's. */
  readonly bound: number | undefined
}

export interface StreamReader {
  /** One event as it came: its name and its data. */
  see(event: string | undefined, data: string): Seen
  /**
   * Whole frames that bring the stream to a proper end, for a reader who has seen what `see` has: a last piece with the
   * provider's own word for "the bound was reached", and whatever ends a stream.
   */
  ending(): string
}

export interface Seen {
  /** False: it is about the usage that the gateway asked for and the caller did not. */
  readonly isShown: boolean
  /** Whole frames that are shown in its place: it without the usage that nobody asked for. */
  readonly instead?: string
  /** The text that it brought. */
  readonly text: string
  /** All that was used, as far as the upstream tells. */
  readonly usage: Quantities | undefined
  /** What was used but for the output, where that is told first. */
  readonly known?: Quantities
  /** With this the answer is whole: nothing is gained by ending it. */
  readonly isEnd: boolean
  /** With this all text has come, and what was used is told next: that is waited for though the caller has left. */
  readonly isFinished?: boolean
}
