/** Which format it is, and the whole way from texts to a cluster. */
import { TsdlmError } from '../protocol/errors.js';
import { parseCcs } from './ccs-text.js';
import { fromCcs, fromXml } from './from-gulm.js';
import { fromOcfs2 } from './from-ocfs2.js';
import { parseOcfs2 } from './ocfs2-text.js';
import { type Imported, keepFromDuel } from './result.js';
import { parseXml } from './xml-text.js';

export const FORMATS = ['ocfs2', 'ccs', 'xml'] as const;
export type Format = (typeof FORMATS)[number];

export interface SourceText {
  file: string;
  text: string;
}

export interface ImportOptions {
  format?: Format;
  /** Which cluster of an ocfs2 file. */
  cluster?: string;
  keepPorts: boolean;
  /** Absolute path, as the configuration will name it. */
  secretsDir: string;
}

/** By the first character that means something: `<` is XML, a section `name {` is CCS, a stanza `name:` is ocfs2. */
export function formatOf(source: SourceText): Format {
  const text = source.text.replace(/^\ufeff/, '').replace(/^(?:\s|#[^\n]*(?:\n|$))*/, '');
  if (text.startsWith('<')) return 'xml';
  if (/^"?[^\s{}="]{1,255}"?\s*\{/.test(text)) return 'ccs';
  return 'ocfs2';
}

/** Throws TSDLM_BAD_CONFIG as `file:line: what is wrong`, TSDLM_USAGE for files that do not go together. */
export function importTexts(sources: readonly SourceText[], options: ImportOptions): Imported & { format: Format } {
  const imported = convert(sources, options);
  keepFromDuel(imported);
  return imported;
}

function convert(sources: readonly SourceText[], options: ImportOptions): Imported & { format: Format } {
  const [first] = sources;
  if (!first) throw new TsdlmError('TSDLM_USAGE', 'there is no file to import');
  const format = options.format ?? formatOf(first);
  const other = options.format === undefined ? sources.find((s) => formatOf(s) !== format) : undefined;
  if (other)
    throw new TsdlmError('TSDLM_USAGE', `${first.file} is ${format} and ${other.file} is ${formatOf(other)}: import one of them`);
  if (format === 'ccs')
    return {
      format,
      ...fromCcs(
        sources.map((s) => parseCcs(s.text, s.file)),
        options.secretsDir,
      ),
    };
  if (sources.length > 1) throw new TsdlmError('TSDLM_USAGE', `${sources.length} files of the format ${format}: give one`);
  if (format === 'xml') return { format, ...fromXml(parseXml(first.text, first.file), options.secretsDir) };
  const ocfs2 = { keepPorts: options.keepPorts, ...(options.cluster === undefined ? {} : { cluster: options.cluster }) };
  return { format, ...fromOcfs2(parseOcfs2(first.text, first.file), ocfs2) };
}
