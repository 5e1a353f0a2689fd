/** Where a body names what its provider keeps and Sluice binds to nobody: files, vector stores, containers, skills. */
import { object } from './body.ts'

const NAMES = new Set(['file_id', 'file_ids', 'vector_store_ids', 'container_id', 'skill_id', 'tunnel_id'])
/** What is in them is the caller's own, or was said by the model: nothing is looked up by it. */
const FREE = new Set([
  ...['parameters', 'input_schema', 'schema', 'arguments', 'headers', 'filters', 'metadata'],
  ...['annotations', 'citations', 'results'],
])

/** The JSON pointer of the first of them; undefined where there is none. */
export function namedIn(value: unknown, at = ''): string | undefined {
  if (Array.isArray(value)) {
    for (const [place, one] of value.entries()) {
      const found = namedIn(one, `${at}/${place}`)
      if (found !== undefined) return found
    }
    return undefined
  }
  const fields = object(value)
  if (fields === undefined) return undefined
  const type = typeof fields.type === 'string' ? fields.type : ''
  // What a tool of the provider's has brought before.
  if (type.endsWith('_tool_result')) return undefined
  for (const [name, inner] of Object.entries(fields)) {
    const isFree =
      FREE.has(name) ||
      (name === 'input' && type.endsWith('tool_use')) ||
      (name === 'container_id' && type === 'code_interpreter_call') ||
      // The provider's own are everybody's.
      (name === 'skill_id' && type === 'anthropic')
    if (isFree) continue
    const found = isNamed(name, inner) ? `${at}/${name}` : namedIn(inner, `${at}/${name}`)
    if (found !== undefined) return found
  }
  return undefined
}

const isNamed = (name: string, value: unknown): boolean =>
  NAMES.has(name)
    ? (typeof value === 'string' || Array.isArray(value)) && value.length > 0
    : name === 'container' && typeof (object(value)?.id ?? value) === 'string'
