// Target assignment without Python: loads an AOTInductor package, runs it on tensors from a file, prints the positives.
//
//   assign assignment.aoti.pt2 inputs.pt outputs.pt
//
// `python -m compiled_loss export assignment --out assignment.aoti.pt2` writes the package, `torch.save(dict, "inputs.pt")` the named
// inputs; `dict(torch.load("outputs.pt"))` reads the outputs. Exit status 2: a wrong argument.

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/serialize.h>

// One tensor of the package's tables. A size is a number, or an axis such as "B" or "4h".
struct Port {
  std::string name;
  std::vector<std::string> shape;
  std::string dtype;
};

[[noreturn]] void fail(const std::string& reason) { throw std::runtime_error(reason); }

// Reads `[["boxes", ["N", 4], "float32", "what it holds"], ...]`, the form of the metadata's inputs and outputs.
std::vector<Port> read_ports(const std::string& json) {
  static const std::regex entry(R"re(\[\s*"(\w+)"\s*,\s*\[([^\]]*)\]\s*,\s*"(\w+)")re"), word(R"re(\w+)re");
  std::vector<Port> ports;
  for (std::sregex_iterator it(json.begin(), json.end(), entry), end; it != end; ++it) {
    ports.push_back({it->str(1), {}, it->str(3)});
    const std::string shape = it->str(2);
    for (std::sregex_iterator size(shape.begin(), shape.end(), word); size != end; ++size) {
      ports.back().shape.push_back(size->str());
    }
  }
  return ports;
}

// Whether a tensor is as the table says; `axes` are the sizes seen so far, such as of B and N.
bool fits(const Port& port, const at::Tensor& x, std::map<std::string, int64_t>& axes) {
  if (!x.is_cpu() || x.scalar_type() != (port.dtype == "int64" ? at::kLong : at::kFloat)) return false;
  if (x.dim() != static_cast<int64_t>(port.shape.size())) return false;
  for (int64_t dim = 0; dim < x.dim(); ++dim) {
    const std::string& size = port.shape[dim];
    const size_t digits = std::min(size.find_first_not_of("0123456789"), size.size());
    const std::string axis = size.substr(digits);
    const int64_t factor = digits == 0 ? 1 : std::stoll(size);
    const int64_t units = axis.empty() ? 1 : axes.emplace(axis, x.size(dim) / factor).first->second;
    if (x.size(dim) != factor * units) return false;
  }
  return true;
}

// The tensors in the order that the package takes them. It does not look at them itself: it would read beyond the end
// of one that is too small, and end the process over a class that does not exist.
std::vector<at::Tensor> in_order(const std::vector<Port>& ports, std::map<std::string, at::Tensor> named) {
  std::vector<at::Tensor> tensors;
  std::map<std::string, int64_t> axes;
  int64_t classes = 0;
  for (const Port& port : ports) {
    const at::Tensor x = named[port.name];
    if (!x.defined() || !fits(port, x, axes)) {
      std::ostringstream text;
      text << "input " << port.name << ": expected " << port.dtype << " [";
      for (const std::string& size : port.shape) text << " " << size;
      text << " ], got " << (x.defined() ? "" : "nothing");
      if (x.defined()) text << x.dtype() << " " << x.sizes();
      fail(text.str());
    }
    if (port.name.rfind("pred_scores", 0) == 0) classes = x.size(1);
    tensors.push_back(x.contiguous());
  }
  const at::Tensor image = named["batch_idx"], label = named["cls"];
  const at::Tensor real = (image >= 0) & (image < axes["B"]), known = (label >= 0) & (label < classes);
  if ((real & ~known).any().item<bool>()) fail("input cls: expected 0 to " + std::to_string(classes - 1));
  return tensors;
}

std::map<std::string, at::Tensor> read_tensors(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("no file " + path);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::map<std::string, at::Tensor> named;
  try {
    for (const auto& item : torch::pickle_load(bytes).toGenericDict()) {
      named.emplace(item.key().toStringRef(), item.value().toTensor());
    }
  } catch (const std::exception&) {
    fail(path + ": expected a dict of tensors, written by torch.save");
  }
  return named;
}

void write_tensors(const std::string& path, const std::map<std::string, at::Tensor>& named) {
  std::vector<c10::IValue> pairs;  // a Dict would be written with a type that torch.load refuses
  for (const auto& [name, x] : named) pairs.emplace_back(c10::ivalue::Tuple::create(name, x));
  const std::vector<char> bytes = torch::pickle_save(c10::ivalue::Tuple::create(std::move(pairs)));
  std::ofstream file(path, std::ios::binary);
  if (!file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush()) fail("cannot write " + path);
}

void print_positives(const std::map<std::string, at::Tensor>& found, int64_t shown = 20) {
  const at::Tensor places = found.at("valid").nonzero().flatten();
  const int64_t count = places.numel();
  std::cout << "   image  anchor     row      weight\n" << std::setprecision(4);
  for (int64_t i = 0; i < std::min(count, shown); ++i) {
    const int64_t place = places[i].item<int64_t>();
    for (const char* name : {"image", "anchor", "row"}) {
      std::cout << std::setw(8) << found.at(name)[place].item<int64_t>();
    }
    std::cout << std::setw(12) << found.at("weight")[place].item<float>() << "\n";
  }
  if (count > shown) std::cout << "   ... and " << count - shown << " more\n";
  std::cout << count << " positives\n";
}

void run(const std::string& package, const std::string& inputs, const std::string& outputs) {
  if (!std::ifstream(package)) fail("no file " + package);
  std::optional<torch::inductor::AOTIModelPackageLoader> loader;
  try {
    loader.emplace(package);
  } catch (const std::exception&) {
    fail(package + ": expected an AOTInductor package, of this version of torch");
  }
  auto metadata = loader->get_metadata();
  if (metadata["interface_version"] != "1" || metadata["graph"] != "\"assignment\"") {
    fail(package + ": expected interface version 1, graph assignment");
  }
  const std::vector<at::Tensor> results = loader->run(in_order(read_ports(metadata["inputs"]), read_tensors(inputs)));
  const std::vector<Port> ports = read_ports(metadata["outputs"]);
  std::map<std::string, at::Tensor> named;
  for (size_t i = 0; i < ports.size(); ++i) named[ports[i].name] = results.at(i);
  print_positives(named);
  write_tensors(outputs, named);
}

int main(int count, char** arguments) {
  try {
    if (count != 4) fail("usage: assign assignment.aoti.pt2 inputs.pt outputs.pt");
    const c10::InferenceMode no_gradients;
    run(arguments[1], arguments[2], arguments[3]);
  } catch (const std::exception& error) {
    const std::string text = error.what();  // of torch, followed by a trace
    std::cerr << "assign: " << text.substr(0, text.find('\n')) << "\n";
    return 2;
  }
  return 0;
}
