/** Which columns of a trace mean what: said by options, or known from the header. */
import { usage } from '../failure.ts'

export interface Mapping {
  /** What the columns are known as; `options` where they were all said. */
  readonly name: string
  readonly time: string
  readonly client: string | undefined
  /** Quantity → the columns that are summed for it. */
  readonly quantities: Readonly<Record<string, readonly string[]>>
}

export const PRESETS: readonly Mapping[] = [
  {
    name: 'azure-llm',
    time: 'TIMESTAMP',
    client: undefined,
    quantities: { input_tokens: ['ContextTokens'], output_tokens: ['GeneratedTokens'] },
  },
  {
    name: 'servegen',
    time: 't_seconds',
    client: 'client',
    quantities: { input_tokens: ['input_tokens'], output_tokens: ['output_tokens'] },
  },
  {
    name: 'servegen-images',
    time: 't_seconds',
    client: 'client',
    // An image costs what its tokens cost.
    quantities: { input_tokens: ['text_tokens', 'image_tokens'], output_tokens: ['output_tokens'] },
  },
]

/** What the options say; it comes before what the header tells. */
export interface Said {
  readonly time?: string
  readonly client?: string
  /** `input_tokens` → `text+image`. */
  readonly quantity?: Readonly<Record<string, string>>
}

export function mappingOf(header: readonly string[], said: Said): Mapping {
  const has = (column: string): boolean => header.includes(column)
  const preset = PRESETS.find(
    ({ time, quantities }) => has(time) && Object.values(quantities).flat().every(has),
  )
  const quantities =
    said.quantity === undefined
      ? preset?.quantities
      : Object.fromEntries(Object.entries(said.quantity).map(([name, columns]) => [name, columns.split('+')]))
  const time = said.time ?? preset?.time
  const columns = `The columns are ${header.join(', ')}.`
  if (time === undefined || quantities === undefined) {
    throw usage(
      'This trace is none that is known',
      `Say --time COLUMN and --quantity NAME=COLUMN. ${columns}`,
    )
  }
  const client =
    said.client ?? (preset?.client !== undefined && has(preset.client) ? preset.client : undefined)
  const missing = [time, ...(client === undefined ? [] : [client]), ...Object.values(quantities).flat()].find(
    (column) => !has(column),
  )
  if (missing !== undefined) throw usage(`The trace has no column ${missing}`, columns)
  const name = preset === undefined || said.quantity !== undefined ? 'as the options say' : preset.name
  return { name, time, client, quantities }
}

/** In one line, for the report. */
export function mappingText({ name, time, client, quantities }: Mapping): string {
  const sums = Object.entries(quantities).map(([quantity, columns]) => `${quantity} = ${columns.join(' + ')}`)
  return `${name}: time ${time}, ${client === undefined ? 'no client' : `client ${client}`}, ${sums.join(', ')}`
}
